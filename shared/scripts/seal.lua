-- Note calls of one partition as published, whose publication Redis has forgotten: what a rebuild does with complete calls.
--
-- KEYS[1]               sorted set of open calls of the partition, scored by when to look at them again (ms since 1970)
-- KEYS[2i], KEYS[2i+1]  the i-th call: hash of facts, hash of its publication
-- ARGV[1], ARGV[2]      seconds to keep the facts of a published call, and its publication
-- ARGV                  then for each call: its name, its last revision, the summary of it
-- Returns               number of calls that were noted; a call that was claimed or published since stays as it is
-- Idempotent.
local open_calls, retain_s, tombstone_s = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local sealed = 0
for key = 2, #KEYS, 2 do
    local arg = 3 + (key - 2) / 2 * 3
    local name, revision, summary = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2]
    local facts_key, publication_key = KEYS[key], KEYS[key + 1]
    if not redis.call('HGET', publication_key, 'state') then
        redis.call('HSET', publication_key, 'revision', revision, 'state', 'published', 'summary', summary)
        redis.call('EXPIRE', facts_key, retain_s)
        redis.call('EXPIRE', publication_key, tombstone_s)
        redis.call('ZREM', open_calls, name)
        sealed = sealed + 1
    end
end
return sealed

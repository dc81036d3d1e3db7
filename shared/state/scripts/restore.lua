-- Note what is known, from elsewhere, to have been published of calls of one partition: Redis has forgotten it, or never knew.
--
-- KEYS[1]               sorted set of open calls of the partition, scored by when to look at them again (ms since 1970)
-- KEYS[2i], KEYS[2i+1]  the i-th call: hash of facts, hash of its publication
-- ARGV[1], ARGV[2]      seconds to keep the facts of a published call, and its publication
-- ARGV                  then for each call: its name, its last revision, the summary of it, the version of the facts seen, when to
--                       look at it again: ms since 1970, '' for never, 'tombstone' to forget its facts, which are not all there
-- Returns               nothing
-- A call of which Redis knows this revision as published, or a higher one as claimed or published, stays as it is.
-- Who has not seen every fact has the call looked at at once, as mark.lua does.
-- Idempotent.
local open_calls, retain_s, tombstone_s = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
for key = 2, #KEYS, 2 do
    local arg = 3 + (key - 2) / 2 * 5
    local name, revision, summary, version, wake_at = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3], ARGV[arg + 4]
    local facts_key, publication_key = KEYS[key], KEYS[key + 1]
    local stored = redis.call('HMGET', publication_key, 'revision', 'state', 'version')
    local before = tonumber(stored[1] or '0')
    if before < tonumber(revision) or (before == tonumber(revision) and stored[2] ~= 'published') then
        redis.call('HSET', publication_key, 'revision', revision, 'state', 'published', 'summary', summary)
        redis.call('HDEL', publication_key, 'outbox', 'holder', 'until_ms', 'seen')
        if wake_at == 'tombstone' then
            redis.call('DEL', facts_key)
            wake_at = ''
        elseif (stored[3] or '') ~= version then
            wake_at = '0'
        end
        if wake_at == '' then
            redis.call('EXPIRE', facts_key, retain_s)
            redis.call('EXPIRE', publication_key, tombstone_s)
            redis.call('ZREM', open_calls, name)
        else
            redis.call('PERSIST', facts_key)
            redis.call('PERSIST', publication_key)
            redis.call('ZADD', open_calls, wake_at, name)
        end
    end
end

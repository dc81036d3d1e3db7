#!lua flags=allow-oom
-- Mark claimed revisions of calls of one partition as published, and delete their outboxes.
--
-- Facts that arrived since the outbox was made may amend the call, so the call then gets a wake-up that is due at once.
-- Idempotent. A revision other than the claimed one changes nothing.
-- It frees memory, and so it may run while memory is full.
--
-- KEYS[1]: sorted set of the partition's open calls, scored by wake-up time (ms since 1970)
-- KEYS[2i ..]: of call i, the hash of its facts, then the hash of its publication
-- ARGV[1]: seconds to keep the facts of a published call
-- ARGV[2]: seconds to keep its publication, the tombstone by which a later callback is recognized as late
-- ARGV: then for each call its name and the confirmed revision
--
-- Returns  nothing
local open_calls, retain_s, tombstone_s = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
for key = 2, #KEYS, 2 do
    local name, revision = ARGV[key + 1], ARGV[key + 2]
    local facts_key, publication_key = KEYS[key], KEYS[key + 1]
    local stored = redis.call('HMGET', publication_key, 'revision', 'state', 'version', 'seen')
    if stored[1] == revision and stored[2] == 'claimed' then
        redis.call('HSET', publication_key, 'state', 'published')
        redis.call('HDEL', publication_key, 'outbox', 'holder', 'until_ms', 'seen')
        -- Redis may have lost the facts since. A re-evaluation would then have nothing to read.
        if stored[3] == stored[4] or redis.call('EXISTS', facts_key) == 0 then
            redis.call('EXPIRE', facts_key, retain_s)
            redis.call('EXPIRE', publication_key, tombstone_s)
            redis.call('ZREM', open_calls, name)
        else
            redis.call('ZADD', open_calls, 0, name)
        end
    end
end

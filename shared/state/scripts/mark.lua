-- Mark claimed revisions of calls of one partition as published; their outboxes are no longer needed.
--
-- Where facts have come since the outbox was made, the call is to be looked at at once: they may amend it.
--
-- KEYS[1]               sorted set of open calls of the partition, scored by when to look at them again (ms since 1970)
-- KEYS[2i], KEYS[2i+1]  the i-th call: hash of facts, hash of its publication
-- ARGV[1]               seconds to keep the facts of a published call
-- ARGV[2]               seconds to keep its publication: the tombstone by which a callback that is later still is known
-- ARGV                  then for each call: its name, the revision that was confirmed
-- Returns               nothing
-- Idempotent. A revision other than the claimed one changes nothing.
local open_calls, retain_s, tombstone_s = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
for key = 2, #KEYS, 2 do
    local name, revision = ARGV[key + 1], ARGV[key + 2]
    local facts_key, publication_key = KEYS[key], KEYS[key + 1]
    local stored = redis.call('HMGET', publication_key, 'revision', 'state', 'version', 'seen')
    if stored[1] == revision and stored[2] == 'claimed' then
        redis.call('HSET', publication_key, 'state', 'published')
        redis.call('HDEL', publication_key, 'outbox', 'holder', 'until_ms', 'seen')
        -- Without facts, which Redis may have lost since, a look would find nothing.
        if stored[3] == stored[4] or redis.call('EXISTS', facts_key) == 0 then
            redis.call('EXPIRE', facts_key, retain_s)
            redis.call('EXPIRE', publication_key, tombstone_s)
            redis.call('ZREM', open_calls, name)
        else
            redis.call('ZADD', open_calls, 0, name)
        end
    end
end

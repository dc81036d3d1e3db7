-- Mark claimed revisions of calls of one partition as published; their outboxes are no longer needed.
--
-- KEYS[1]               sorted set of open calls of the partition
-- KEYS[2i], KEYS[2i+1]  the i-th call: hash of facts, hash of its publication
-- ARGV[1]               seconds to keep a published call
-- ARGV                  then for each call: its name, the revision that was confirmed
-- Returns               number of calls marked
-- Idempotent. A revision other than the claimed one changes nothing.
local open_calls, retain_s = KEYS[1], tonumber(ARGV[1])
local marked = 0
for key = 2, #KEYS, 2 do
    local name, revision = ARGV[key], ARGV[key + 1]
    local facts_key, publication_key = KEYS[key], KEYS[key + 1]
    if redis.call('HGET', publication_key, 'revision') == revision then
        redis.call('HSET', publication_key, 'state', 'published')
        redis.call('HDEL', publication_key, 'outbox', 'holder', 'until_ms')
        redis.call('EXPIRE', facts_key, retain_s)
        redis.call('EXPIRE', publication_key, retain_s)
        redis.call('ZREM', open_calls, name)
        marked = marked + 1
    end
end
return marked

-- Say when calls of one partition are to be looked at again.
--
-- A look too early does no harm, one too late does. So a time only moves forward (earlier), except by one who has seen
-- every fact: the version proves it.
--
-- KEYS[1]               sorted set of open calls of the partition, scored by when to look at them again (ms since 1970)
-- KEYS[2i], KEYS[2i+1]  the i-th call: hash of facts, hash of its publication
-- ARGV[1], ARGV[2]      seconds to keep the facts of a published call, and its publication
-- ARGV                  then for each call: its name, the version of the facts seen, when to look in ms, or '' for never again
-- Returns               nothing
-- Idempotent.
local open_calls, retain_s, tombstone_s = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
for key = 2, #KEYS, 2 do
    local arg = 3 + (key - 2) / 2 * 3
    local name, version, wake_at_ms = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2]
    local facts_key, publication_key = KEYS[key], KEYS[key + 1]
    local has_seen_all = (redis.call('HGET', publication_key, 'version') or '0') == version
    if wake_at_ms ~= '' then
        if has_seen_all then
            redis.call('ZADD', open_calls, wake_at_ms, name)
        else
            redis.call('ZADD', open_calls, 'LT', wake_at_ms, name)
        end
        redis.call('PERSIST', facts_key)
        redis.call('PERSIST', publication_key)
    elseif has_seen_all then
        redis.call('EXPIRE', facts_key, retain_s)
        redis.call('EXPIRE', publication_key, tombstone_s)
        redis.call('ZREM', open_calls, name)
    end
end

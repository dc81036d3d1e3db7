#!lua flags=allow-oom
-- Set the wake-ups of calls of one partition.
--
-- A wake-up that is too early does no harm, one that is too late does. A time can therefore only become earlier, unless the
-- caller has seen every fact. The version proves that. Idempotent.
-- It also runs while memory is full: it adds no call, and the facts of published calls expire by it.
--
-- KEYS[1]: sorted set of the partition's open calls, scored by wake-up time (ms since 1970)
-- KEYS[2i ..]: of call i, the hash of its facts, then the hash of its publication
-- ARGV[1]: seconds to keep the facts of a published call
-- ARGV[2]: seconds to keep its publication
-- ARGV: then for each call its name, the version of the facts that the caller saw, and the wake-up in ms since 1970, or '' for none
--
-- Returns  nothing
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

#!lua
-- Remember how many uses the RequestIDs (or CallIDs) of calls of one partition had, see shared/domain/uses.py.
--
-- The publication of the first use is the place that every later event of the RequestID finds. It expires no earlier than
-- the publication of the last use would. A first use that is gone stays gone. Idempotent and commutative.
--
-- KEYS[i]: hash of the publication of the first use i, see keys.py
-- ARGV[1]: seconds to keep a publication
-- ARGV: then for each call the number of its uses
--
-- Returns  nothing
for i, key in ipairs(KEYS) do
    if redis.call('EXISTS', key) == 1 then
        if tonumber(redis.call('HGET', key, 'uses') or '1') < tonumber(ARGV[i + 1]) then
            redis.call('HSET', key, 'uses', ARGV[i + 1])
        end
        local ttl = redis.call('TTL', key)
        if ttl >= 0 and ttl < tonumber(ARGV[1]) then
            redis.call('EXPIRE', key, ARGV[1])
        end
    end
end

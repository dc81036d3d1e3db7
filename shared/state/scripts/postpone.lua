#!lua
-- Postpone wake-ups of leased calls of one partition.
--
-- A call is postponed only while its lease stands: a worker that has folded something of it since has set another wake-up.
--
-- KEYS[1]: sorted set of the partition's open calls, scored by wake-up time (ms since 1970)
-- ARGV[1]: the end of the lease (ms since 1970)
-- ARGV: then for each call its name and the wake-up (ms since 1970)
--
-- Returns  nothing
for i = 2, #ARGV, 2 do
    if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i]) or '-1') == tonumber(ARGV[1]) then
        redis.call('ZADD', KEYS[1], ARGV[i + 1], ARGV[i])
    end
end

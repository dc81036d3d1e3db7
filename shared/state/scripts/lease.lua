#!lua
-- Lease calls of one partition that are due.
--
-- They stay in the set, with a wake-up at the end of the lease. A worker that crashes thus delays them by at most the lease.
--
-- KEYS[1]: sorted set of the partition's open calls, scored by wake-up time (ms since 1970)
-- ARGV[1]: lease in ms
-- ARGV[2]: maximum number of calls
-- ARGV[3]: the watermark (ms since 1970); calls are due up to it, and the lease starts at it
--
-- Returns  {name, name, ...}
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[3], 'LIMIT', 0, ARGV[2])
for _, name in ipairs(due) do
    redis.call('ZADD', KEYS[1], tonumber(ARGV[3]) + tonumber(ARGV[1]), name)
end
return due

-- Lease calls of one partition whose time to be looked at has come. They stay in the set, due again when the lease is over,
-- so that a worker that dies with them delays a look by no more than the lease.
--
-- KEYS[1]  sorted set of open calls of the partition, scored by when to look at them again (ms since 1970)
-- ARGV[1]  lease in ms
-- ARGV[2]  how many at most
-- ARGV[3]  the time until which calls are due, and from which the lease runs (ms since 1970): the watermark
-- Returns  {name, name, ...}
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[3], 'LIMIT', 0, ARGV[2])
for _, name in ipairs(due) do
    redis.call('ZADD', KEYS[1], tonumber(ARGV[3]) + tonumber(ARGV[1]), name)
end
return due

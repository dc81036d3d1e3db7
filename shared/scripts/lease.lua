-- Lease calls of one partition whose time to be looked at has come. They stay in the set, due again when the lease is over,
-- so that a worker that dies with them delays a look by no more than the lease.
--
-- KEYS[1]  sorted set of open calls of the partition, scored by when to look at them again (ms since 1970)
-- ARGV[1]  lease in ms
-- ARGV[2]  how many at most
-- Returns  {now in ms since 1970, name, name, ...}
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, ARGV[2])
for _, name in ipairs(due) do
    redis.call('ZADD', KEYS[1], now_ms + tonumber(ARGV[1]), name)
end
return {tostring(now_ms), unpack(due)}

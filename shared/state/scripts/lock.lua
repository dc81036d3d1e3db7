#!lua flags=allow-oom
-- Acquire, renew or release an exclusive lock. It is free again when the lease expires.
-- It also runs while memory is full: there are few locks, all expire, and one that is not renewed loses its work.
--
-- KEYS[1]: the lock
-- ARGV[1]: name of the holder
-- ARGV[2]: lease in ms; 0 releases the lock
-- ARGV[3]: 1 acquires a free lock; 0 only renews, so that a holder that lost the lock does not get it back
--
-- Returns  1 if the holder has the lock (or had it, for a release), else 0
local has = redis.call('GET', KEYS[1])
if has ~= ARGV[1] and (has or ARGV[3] == '0') then
    return 0
end
if ARGV[2] == '0' then
    redis.call('DEL', KEYS[1])
else
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1

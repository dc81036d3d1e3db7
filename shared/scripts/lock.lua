-- Take, keep or give up an exclusive lock. It is free again when the lease is over.
--
-- KEYS[1]  the lock
-- ARGV[1]  holder
-- ARGV[2]  lease in ms; 0 gives up
-- Returns  1 where the holder has it (had it, when giving up), 0 where another has
local has = redis.call('GET', KEYS[1])
if has and has ~= ARGV[1] then
    return 0
end
if ARGV[2] == '0' then
    redis.call('DEL', KEYS[1])
else
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1

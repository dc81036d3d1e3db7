-- Take, keep or give up an exclusive lock. It is free again when the lease is over.
--
-- KEYS[1]  the lock
-- ARGV[1]  holder
-- ARGV[2]  lease in ms; 0 gives up
-- ARGV[3]  1 takes it where it is free; 0 only keeps it: who lost it may not have it again
-- Returns  1 where the holder has it (had it, when giving up), else 0
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

#!lua flags=allow-oom
-- Replace a field of a hash if it still has the expected value, so that several observers change it one after the other.
-- It also runs while memory is full: there are few fields, and operators are to learn of the trouble.
--
-- KEYS[1]: the hash
-- ARGV[1]: name of the field
-- ARGV[2]: the expected value; '' if the field does not exist
-- ARGV[3]: the value to store; '' deletes the field
--
-- Returns  1 if the field has the value now, else 0
local stored = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if stored == ARGV[3] then
    return 1
end
if stored ~= ARGV[2] then
    return 0
end
if ARGV[3] == '' then
    redis.call('HDEL', KEYS[1], ARGV[1])
else
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
return 1

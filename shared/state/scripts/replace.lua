#!lua
-- Replace a value that is still the expected one, and keep it for a time.
--
-- KEYS[1]: the key
-- ARGV[1]: the value that is expected
-- ARGV[2]: the value to store
-- ARGV[3]: how long to keep it, in s
--
-- Returns  1 if it was replaced, else 0
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
return 1

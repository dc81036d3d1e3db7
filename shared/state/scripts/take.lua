#!lua flags=allow-oom
-- Read the first events that wait, after those that were folded are deleted. An event that waits twice is the same, so it may go once.
--
-- KEYS[1]: list of the events that wait
-- ARGV[1]: number of events to read
-- ARGV: then the raw events that were folded
--
-- Returns  the events
for i = 2, #ARGV do
    redis.call('LREM', KEYS[1], 1, ARGV[i])
end
return redis.call('LRANGE', KEYS[1], 0, ARGV[1] - 1)

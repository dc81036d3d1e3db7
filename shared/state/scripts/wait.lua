#!lua
-- Add events to those that wait for a partition to be rebuilt.
--
-- KEYS[1]: list of the events that wait, in the order of arrival
-- ARGV: raw events
--
-- Returns  nothing
for first = 1, #ARGV, 1000 do
    redis.call('RPUSH', KEYS[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end

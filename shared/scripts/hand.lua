-- Tell what a worker has in hand of the raw messages: the time before which it has nothing.
--
-- KEYS[1]  hash by worker: "oldest since reported gone consumes", all in ms since 1970 but the last
-- ARGV[1]  the worker
-- ARGV[2]  when the oldest of its messages was received by ingress, in ms since 1970; '' where it has none; '0' where nobody knows
-- ARGV[3]  for how many ms it has had the oldest; '' where it has none
-- ARGV[4]  '1' while it consumes
-- ARGV[5]  '1' where it is gone, and its messages have gone back to the queue
-- Returns  nothing
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local since = ARGV[3] == '' and '' or tostring(now_ms - tonumber(ARGV[3]))
local gone = ARGV[5] == '1' and tostring(now_ms) or ''
redis.call('HSET', KEYS[1], ARGV[1], table.concat({ARGV[2], since, now_ms, gone, ARGV[4]}, ' '))

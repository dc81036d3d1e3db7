#!lua
-- Register a consumer of `callbacks.fold` before it consumes. A second call deletes what it reported before.
--
-- KEYS[1]: hash of members, name to "registered_ms at_work_since passed"; at_work_since is '' until the first report
-- ARGV[1]: name of the consumer
--
-- Returns  nothing
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f  0', now_ms))

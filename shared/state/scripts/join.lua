-- Register a consumer of `callbacks.fold` before it consumes, or again: what it reported before is forgotten.
--
-- KEYS[1]  hash of members: name -> "registered_ms at_work_since passed", see barrier.py; at_work_since is '' until the first report
-- ARGV[1]  its name
-- Returns  nothing
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f  0', now_ms))

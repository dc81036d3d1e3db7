#!lua flags=no-writes
-- Read the reports of workers and ingress in one step.
--
-- KEYS[1]: hash of members, see register.lua
-- KEYS[2]: hash of rounds, see round.lua
-- KEYS[3]: hash of spools, see spool.lua
-- ARGV: none
--
-- Returns  {{name, value, ...}, {number, value, ...}, {spool, value, ...}, now in ms since 1970}
local time = redis.call('TIME')
local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3]), now_ms}

#!lua flags=allow-oom
-- Read the position of a partition, and begin one if there is none yet. Idempotent.
-- It also runs while memory is full, since nothing is read or written before the position is known.
--
-- KEYS[1]: hash of the position, see position.lua
-- ARGV[1]: 1 to begin a position, 0 to read alone
--
-- Returns  {field, value, ..., 'evicted_now', evicted keys of the server}; without a position that field is alone
local info = redis.pcall('INFO', 'stats')
local evicted = type(info) == 'string' and string.match(info, 'evicted_keys:(%d+)') or '0' -- the user may not ask
if ARGV[1] == '1' and redis.call('HEXISTS', KEYS[1], 'generation') == 0 then
    local time = redis.call('TIME')
    local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
    redis.call('HSET', KEYS[1], 'generation', now_ms, 'state', 'ready', 'replaced', '0', 'evicted', evicted)
end
local stored = redis.call('HGETALL', KEYS[1])
stored[#stored + 1] = 'evicted_now'
stored[#stored + 1] = evicted
return stored

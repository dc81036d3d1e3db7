#!lua flags=allow-oom
-- Begin a new generation of a partition whose state was lost. Until it is rebuilt, nothing is concluded from its calls.
--
-- The generation only grows, so every script of the old one fails from now on. If another process was first, nothing changes.
-- It also runs while memory is full: what was lost must not be believed.
--
-- KEYS[1]: hash of the position, see position.lua
-- ARGV[1]: the generation that the caller saw in Redis, '' if there was none
-- ARGV[2]: the latest generation that the caller knows; the new one replaces it
--
-- Returns  {1 if the new generation is the caller's, the generation that the partition has now}
local stored = redis.call('HGET', KEYS[1], 'generation') or ''
if stored ~= ARGV[1] then
    return {0, stored}
end
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local generation = string.format('%.0f', math.max(now_ms, tonumber(ARGV[2]) + 1, tonumber(stored ~= '' and stored or '0') + 1))
local info = redis.pcall('INFO', 'stats')
local evicted = type(info) == 'string' and string.match(info, 'evicted_keys:(%d+)') or '0'
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'generation', generation, 'state', 'rebuilding', 'replaced', ARGV[2], 'evicted', evicted)
return {1, generation}

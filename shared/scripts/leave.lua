-- Note that a consumer has stopped, and that everything it had not settled is back in the queue. Only a round that is opened later
-- can show that it is gone.
--
-- KEYS[1]  hash of members, see join.lua
-- KEYS[2]  hash of rounds, see round.lua
-- ARGV[1]  its name
-- Returns  nothing
-- Idempotent.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local latest = 0
for _, number in ipairs(redis.call('HKEYS', KEYS[2])) do
    latest = math.max(latest, tonumber(number))
end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
    redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f 0', now_ms, latest))
end

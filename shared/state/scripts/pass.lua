#!lua
-- Store that a consumer has passed a round: it has settled every message that it received before a marker of the round.
--
-- A number higher than that of every round is not stored. Idempotent.
--
-- KEYS[1]: hash of members, see register.lua
-- KEYS[2]: hash of rounds, see round.lua
-- ARGV[1]: name of the consumer
-- ARGV[2]: number of the round
--
-- Returns  1, or 0 if Redis does not know the consumer
local stored = redis.call('HGET', KEYS[1], ARGV[1])
local registered_ms, since, passed = string.match(stored or '', '^(%d+) (%d*) (%d+)$')
if not registered_ms then
    return 0
end
local latest = 0
for _, number in ipairs(redis.call('HKEYS', KEYS[2])) do
    latest = math.max(latest, tonumber(number))
end
if tonumber(ARGV[2]) > latest then
    return 1
end
if since == '' then
    since = string.format('%.0f', latest)
end
passed = string.format('%.0f', math.max(tonumber(passed), tonumber(ARGV[2])))
redis.call('HSET', KEYS[1], ARGV[1], table.concat({registered_ms, since, passed}, ' '))
return 1

#!lua
-- Store the number of consumers that the queue had after a round was opened.
--
-- It is too late once a later round was opened, because its markers may have been published already. A consumer that passed them
-- may have been closed before the count.
--
-- KEYS[1]: hash of rounds, see round.lua
-- ARGV[1]: number of the round
-- ARGV[2]: number of consumers
--
-- Returns  1, or 0 if it was too late
local stored = redis.call('HGET', KEYS[1], ARGV[1])
local opened_ms = stored and string.match(stored, '^(%d+) $')
if not opened_ms then
    return 0
end
for _, number in ipairs(redis.call('HKEYS', KEYS[1])) do
    if tonumber(number) > tonumber(ARGV[1]) then
        return 0
    end
end
redis.call('HSET', KEYS[1], ARGV[1], opened_ms .. ' ' .. ARGV[2])
return 1

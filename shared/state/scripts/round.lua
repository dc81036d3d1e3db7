#!lua
-- Open a round of markers, unless the last one was opened too recently.
--
-- The pause between two rounds grows by a tenth for each round that is not complete, up to 30 s. A long backlog then has few
-- rounds, and the first rounds after an outage follow each other quickly.
--
-- KEYS[1]: hash of rounds, number to "opened_ms consumers", see barrier.py; consumers is '' until they are counted
-- ARGV[1]: minimum pause between two rounds, in ms
--
-- Returns  {number}, or {''} if none was opened
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local latest, latest_ms = 0, 0
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
    local number, opened_ms = tonumber(stored[i]), tonumber(string.match(stored[i + 1], '^%d+'))
    if number > latest then
        latest, latest_ms = number, opened_ms
    end
end
local pause_ms = math.min(30000, tonumber(ARGV[1]) * 1.1 ^ (#stored / 2))
if latest_ms <= now_ms and now_ms - latest_ms < pause_ms then
    return {''}
end
-- Numbers only grow, even after Redis has lost some or its clock has gone back.
local number = string.format('%.0f', math.max(latest + 1, now_ms))
redis.call('HSET', KEYS[1], number, string.format('%.0f ', now_ms))
return {number}

-- Open a round of markers, unless one was opened a moment ago. The moment grows by a tenth with each round that is not complete, to
-- half a minute, so that a long backlog has few rounds in it, and the first rounds after an outage are quick.
--
-- KEYS[1]  hash of rounds: number -> "opened_ms consumers", see barrier.py; consumers is '' until they are counted
-- ARGV[1]  ms between two rounds, at least
-- Returns  {number, '' where none was opened}
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
-- Numbers only grow, also after Redis lost some, and when its clock goes back.
local number = string.format('%.0f', math.max(latest + 1, now_ms))
redis.call('HSET', KEYS[1], number, string.format('%.0f ', now_ms))
return {number}

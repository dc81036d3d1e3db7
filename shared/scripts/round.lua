-- Open a round of markers, unless one was opened a moment ago. The moment grows with the time that the oldest round takes, so
-- that there are few rounds however long the backlog is.
--
-- KEYS[1]  hash of rounds: number -> "opened_ms consumers", see barrier.py; consumers is '' until they are counted
-- ARGV[1]  ms between two rounds, at least
-- Returns  {number, '' where none was opened}
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local latest, latest_ms, oldest_ms = 0, 0, now_ms
local stored = redis.call('HGETALL', KEYS[1])
for i = 1, #stored, 2 do
    local number, opened_ms = tonumber(stored[i]), tonumber(string.match(stored[i + 1], '^%d+'))
    if number > latest then
        latest, latest_ms = number, opened_ms
    end
    oldest_ms = math.min(oldest_ms, opened_ms)
end
local pause_ms = math.max(tonumber(ARGV[1]), (now_ms - oldest_ms) / 16)
if latest_ms <= now_ms and now_ms - latest_ms < pause_ms then
    return {''}
end
-- Numbers only grow, also after Redis lost some, and when its clock goes back.
local number = string.format('%.0f', math.max(latest + 1, now_ms))
redis.call('HSET', KEYS[1], number, string.format('%.0f ', now_ms))
return {number}

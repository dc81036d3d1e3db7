#!lua
-- Store what ingress reported of its spools. Of two reports of one spool the later one counts, in any order of arrival.
--
-- Idempotent.
--
-- KEYS[1]: hash by spool, "oldest seen noted"
-- ARGV: for each spool its name, oldest and seen
--
-- - oldest: when the oldest callback in it was received (ms since 1970), or '' if it is empty. It is stored earlier by as much as
--   the clock of ingress is ahead, else a timer could overtake that callback.
-- - seen: when ingress read that (ms since 1970).
-- - noted: when it was stored here (ms since 1970).
--
-- Returns  nothing
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 1, #ARGV, 3 do
    local known = redis.call('HGET', KEYS[1], ARGV[i])
    local before = tonumber(known and string.match(known, '^%d* (%S*) %d+$')) or 0
    local oldest, seen = ARGV[i + 1], tonumber(ARGV[i + 2])
    -- A clock that was ahead and was set right reports earlier times from then on.
    if before <= seen or (before > now_ms + 1000 and seen <= now_ms + 1000) then
        if oldest ~= '' then
            oldest = string.format('%.0f', tonumber(oldest) - math.max(0, seen - now_ms))
        end
        redis.call('HSET', KEYS[1], ARGV[i], table.concat({oldest, ARGV[i + 2], string.format('%.0f', now_ms)}, ' '))
    end
end

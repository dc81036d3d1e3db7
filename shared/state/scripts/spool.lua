#!lua
-- Store what ingress reported of its spools. Of two reports of one spool the later one counts, in any order of arrival.
--
-- Idempotent.
--
-- KEYS[1]: hash by spool, "oldest seen noted"
-- ARGV: for each spool its name, oldest and seen
--
-- - oldest: when the oldest callback in it was received (ms since 1970), or '' if it is empty.
-- - seen: when ingress read that (ms since 1970).
-- - noted: when it was stored here (ms since 1970).
--
-- Returns  nothing
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 1, #ARGV, 3 do
    local known = redis.call('HGET', KEYS[1], ARGV[i])
    local seen = known and string.match(known, '^%d* (%S*) %d+$')
    if not seen or tonumber(seen) <= tonumber(ARGV[i + 2]) then
        redis.call('HSET', KEYS[1], ARGV[i], table.concat({ARGV[i + 1], ARGV[i + 2], now_ms}, ' '))
    end
end

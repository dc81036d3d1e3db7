-- Note what ingress has told of its spools; of two tellings of one spool the later counts, in whatever order they come.
--
-- KEYS[1]  hash by spool: "oldest told heard": when the oldest callback in it was received (ms since 1970, '' where it is empty),
--          when that was seen, when it was noted here (both ms since 1970)
-- ARGV     for each spool: its name, oldest, told
-- Returns  nothing
-- Idempotent.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 1, #ARGV, 3 do
    local known = redis.call('HGET', KEYS[1], ARGV[i])
    local told = known and string.match(known, '^%d* (%S*) %d+$')
    if not told or tonumber(told) <= tonumber(ARGV[i + 2]) then
        redis.call('HSET', KEYS[1], ARGV[i], table.concat({ARGV[i + 1], ARGV[i + 2], now_ms}, ' '))
    end
end

#!lua
-- Lease calls of one partition that are due, and postpone those of a source beyond its part.
--
-- Leased calls stay in the set, with a wake-up at the end of the lease. A worker that crashes thus delays them by at most the lease.
-- One source with very many due calls would hide those of all others. Its calls beyond its part get later wake-ups, one after the
-- other. A limited number of calls is read, so Redis is busy for a few ms.
--
-- KEYS[1]: sorted set of the partition's open calls, scored by wake-up time (ms since 1970)
-- ARGV[1]: lease in ms
-- ARGV[2]: maximum number of calls that are leased
-- ARGV[3]: the watermark (ms since 1970); calls are due up to it, and the lease starts at it
-- ARGV[4]: maximum number of calls of one source that are leased
-- ARGV[5]: ms between the wake-ups of two calls of a source that are postponed
-- ARGV: then for each source that has later wake-ups already, its name and the last of them (ms since 1970)
--
-- Returns  {{name, name, ...}, {source, last wake-up of its postponed calls, ...}, 1 if more calls may be due}
local READ = 2000
local until_ms = tonumber(ARGV[3])
local at_most, at_most_of_source, interval_ms = tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5])
local last_ms, leased_of, is_postponed = {}, {}, {}
for i = 6, #ARGV, 2 do
    last_ms[ARGV[i]] = tonumber(ARGV[i + 1])
end
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', until_ms, 'LIMIT', 0, READ)
local leased, wake_ups = {}, {}
local function set_wake_up(name, at_ms)
    wake_ups[#wake_ups + 1] = at_ms
    wake_ups[#wake_ups + 1] = name
end
for _, name in ipairs(due) do
    local source = string.match(name, '^[^/]*')
    local count = leased_of[source] or 0
    if count >= at_most_of_source then
        last_ms[source] = math.max(last_ms[source] or 0, until_ms) + interval_ms
        is_postponed[source] = true
        set_wake_up(name, last_ms[source])
    elseif #leased < at_most then
        leased_of[source] = count + 1
        leased[#leased + 1] = name
        set_wake_up(name, until_ms + tonumber(ARGV[1]))
    end
end
if #wake_ups > 0 then
    redis.call('ZADD', KEYS[1], unpack(wake_ups)) -- in one command: Lua can pass twice as many arguments
end
local postponed = {}
for source in pairs(is_postponed) do
    postponed[#postponed + 1] = source
    postponed[#postponed + 1] = last_ms[source]
end
return {leased, postponed, (#due == READ or #leased == at_most) and 1 or 0}

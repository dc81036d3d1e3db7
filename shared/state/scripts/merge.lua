-- Merge facts into calls of one partition, and return what each call now is.
--
-- A field keeps the minimum, byte by byte, of the values it was given; a field whose name starts with '>' the maximum.
-- Such fields alone are no call: a clock, say, of a call that nothing else is known of. They are not kept.
-- Knows nothing of telephony. Idempotent, commutative, associative: a repeated or reordered command does no harm.
-- A published call whose facts have expired stays buried: what comes so late changes nothing.
--
-- KEYS[1]               sorted set of open calls of the partition, scored by when to look at them again (ms since 1970)
-- KEYS[2]               sorted set of calls of the partition, scored by their start (microseconds since 1970)
-- KEYS[2i+1], KEYS[2i+2]  the i-th call: hash of facts, hash of its publication
-- ARGV[1]               ms after which a call that is new here is looked at, unless somebody asks for it sooner
-- ARGV[2]               ms after its start at which a call leaves the second set: its facts have expired by then
-- ARGV                  then for each call in turn: its name, its start as these facts tell it (microseconds since 1970, or ''),
--                       the number n of its facts, then n times field, value
-- Returns               for each call: {facts as field, value, ...; revision; state; summary; version; wake_at_ms}
--                       revision '0', state and summary '' where nothing was claimed yet; state 'tombstone' see above;
--                       version counts the merges that changed something; wake_at_ms '' where no look is due
local open_calls, recent, first_look_ms = KEYS[1], KEYS[2], tonumber(ARGV[1])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
-- Lua's own `<` compares strings as the server's locale collates them.
local function is_less(one, other)
    for i = 1, math.min(#one, #other) do
        local a, b = string.byte(one, i), string.byte(other, i)
        if a ~= b then
            return a < b
        end
    end
    return #one < #other
end
local result = {}
redis.call('ZREMRANGEBYSCORE', recent, '-inf', (now_ms - tonumber(ARGV[2])) * 1000)
local arg = 3
for key = 3, #KEYS, 2 do
    local facts_key, publication_key = KEYS[key], KEYS[key + 1]
    local name, started_us, count = ARGV[arg], ARGV[arg + 1], tonumber(ARGV[arg + 2])
    arg = arg + 3

    local order, facts, is_call = {}, {}, false
    local stored = redis.call('HGETALL', facts_key)
    for i = 1, #stored, 2 do
        is_call = is_call or string.byte(stored[i]) ~= 62 -- '>'
        order[#order + 1] = stored[i]
        facts[stored[i]] = stored[i + 1]
    end
    local publication = redis.call('HMGET', publication_key, 'revision', 'state', 'summary', 'version')
    local revision, state, version = publication[1] or '0', publication[2] or '', publication[4] or '0'
    if state == 'published' and #stored == 0 then
        state = 'tombstone'
    end

    local changed = {}
    for _ = 1, count do
        local field, value = ARGV[arg], ARGV[arg + 1]
        arg = arg + 2
        local before, is_maximum = facts[field], string.byte(field) == 62
        local wins = false
        is_call = is_call or not is_maximum
        if before == nil then
            wins = true
            order[#order + 1] = field
        elseif value ~= before then
            wins = is_less(value, before) ~= is_maximum
        end
        if wins then
            facts[field] = value
            changed[field] = value
        end
    end
    local writes = {}
    if is_call and state ~= 'tombstone' then
        for field, value in pairs(changed) do
            writes[#writes + 1] = field
            writes[#writes + 1] = value
        end
    end
    -- unpack is bounded by Lua's stack: write in slices
    for first = 1, #writes, 1000 do
        redis.call('HSET', facts_key, unpack(writes, first, math.min(first + 999, #writes)))
    end
    if started_us ~= '' and state ~= 'tombstone' then
        redis.call('ZADD', recent, 'LT', started_us, name)
    end
    if #writes > 0 then
        version = redis.call('HINCRBY', publication_key, 'version', 1)
    end
    if is_call and (state == '' or state == 'claimed') then
        redis.call('ZADD', open_calls, 'NX', now_ms + first_look_ms, name)
    end
    if not is_call and #stored == 0 then
        order = {}
    end
    local flat = {}
    for _, field in ipairs(order) do
        flat[#flat + 1] = field
        flat[#flat + 1] = facts[field]
    end
    local wake_at = redis.call('ZSCORE', open_calls, name) or ''
    result[#result + 1] = {flat, revision, state, publication[3] or '', tostring(version), wake_at}
end
return result

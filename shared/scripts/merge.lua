-- Merge facts into calls of one partition, and return what each call now is.
--
-- A field keeps the lexicographic minimum of the values it was given; a field whose name starts with '>' the maximum.
-- Knows nothing of telephony. Idempotent, commutative, associative: a repeated or reordered command does no harm.
-- A published call whose facts have expired stays buried: what comes so late changes nothing.
--
-- KEYS[1]               sorted set of open calls of the partition, scored by when to look at them again (ms since 1970)
-- KEYS[2i], KEYS[2i+1]  the i-th call: hash of facts, hash of its publication
-- ARGV[1]               ms after which a call that is new here is looked at, unless somebody asks for it sooner
-- ARGV                  then for each call in turn: its name, the number n of its facts, then n times field, value
-- Returns               for each call: {facts as field, value, ...; revision; state; summary; version; look_at_ms}
--                       revision '0', state and summary '' where nothing was claimed yet; state 'buried' see above;
--                       version counts the merges that changed something; look_at_ms '' where no look is due
local open_calls, first_look_ms = KEYS[1], tonumber(ARGV[1])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local result = {}
local arg = 2
for key = 2, #KEYS, 2 do
    local facts_key, publication_key = KEYS[key], KEYS[key + 1]
    local name, count = ARGV[arg], tonumber(ARGV[arg + 1])
    arg = arg + 2

    local order, facts = {}, {}
    local stored = redis.call('HGETALL', facts_key)
    for i = 1, #stored, 2 do
        order[#order + 1] = stored[i]
        facts[stored[i]] = stored[i + 1]
    end
    local publication = redis.call('HMGET', publication_key, 'revision', 'state', 'summary', 'version')
    local revision, state, version = publication[1] or '0', publication[2] or '', publication[4] or '0'
    if state == 'published' and #stored == 0 then
        state = 'buried'
    end

    local changed = {}
    for _ = 1, count do
        local field, value = ARGV[arg], ARGV[arg + 1]
        arg = arg + 2
        local before = facts[field]
        local wins
        if before == nil then
            wins = true
            order[#order + 1] = field
        elseif string.sub(field, 1, 1) == '>' then
            wins = value > before
        else
            wins = value < before
        end
        if wins then
            facts[field] = value
            changed[field] = value
        end
    end
    local writes = {}
    if state ~= 'buried' then
        for field, value in pairs(changed) do
            writes[#writes + 1] = field
            writes[#writes + 1] = value
        end
    end
    -- unpack is bounded by Lua's stack: write in slices
    for first = 1, #writes, 1000 do
        redis.call('HSET', facts_key, unpack(writes, first, math.min(first + 999, #writes)))
    end
    if #writes > 0 then
        version = redis.call('HINCRBY', publication_key, 'version', 1)
    end
    if state == '' or state == 'claimed' then
        redis.call('ZADD', open_calls, 'NX', now_ms + first_look_ms, name)
    end
    local flat = {}
    for _, field in ipairs(order) do
        flat[#flat + 1] = field
        flat[#flat + 1] = facts[field]
    end
    local look_at = redis.call('ZSCORE', open_calls, name) or ''
    result[#result + 1] = {flat, revision, state, publication[3] or '', tostring(version), look_at}
end
return result

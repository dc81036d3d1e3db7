-- Merge facts into calls of one partition, and return what each call now is.
--
-- A field keeps the lexicographic minimum of the values it was given; a field whose name starts with '>' the maximum.
-- Knows nothing of telephony. Idempotent, commutative, associative: a repeated or reordered command does no harm.
--
-- KEYS[1]               sorted set of open calls of the partition, scored by the time they were first seen (ms)
-- KEYS[2i], KEYS[2i+1]  the i-th call: hash of facts, hash of its publication
-- ARGV                  for each call in turn: its name, the number n of its facts, then n times field, value
-- Returns               for each call: {facts as field, value, ...; revision; state of the publication}
--                       revision is '0' and state '' where nothing was claimed yet
local open_calls = KEYS[1]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local result = {}
local arg = 1
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
    for field, value in pairs(changed) do
        writes[#writes + 1] = field
        writes[#writes + 1] = value
    end
    -- unpack is bounded by Lua's stack: write in slices
    for first = 1, #writes, 1000 do
        redis.call('HSET', facts_key, unpack(writes, first, math.min(first + 999, #writes)))
    end

    local publication = redis.call('HMGET', publication_key, 'revision', 'state')
    local revision, state = publication[1] or '0', publication[2] or ''
    if state ~= 'published' then
        redis.call('ZADD', open_calls, 'NX', now_ms, name)
    end
    local flat = {}
    for _, field in ipairs(order) do
        flat[#flat + 1] = field
        flat[#flat + 1] = facts[field]
    end
    result[#result + 1] = {flat, revision, state}
end
return result

-- Merge facts into calls of one partition, and return each call.
--
-- A field keeps the minimum of its values, byte by byte; a field whose name starts with '>' keeps the maximum.
-- Fields with '>' alone, such as the clock of an unknown call, are not a call and are not stored.
-- The script knows nothing of telephony. It is idempotent, commutative and associative, so repeats and reordering do no harm.
-- A published call whose facts have expired is a tombstone: later facts do not change it.
--
-- KEYS[1]: sorted set of the partition's open calls, scored by wake-up time (ms since 1970)
-- KEYS[2]: sorted set of the partition's calls, scored by start (microseconds since 1970)
-- KEYS[3 ..]: of each call the hash of its facts, then the hash of its publication
-- ARGV[1]: ms from now to the first wake-up of a new call
-- ARGV[2]: ms from its start until a call leaves the second set; its facts have expired by then
-- ARGV: then for each call name, start by these facts (microseconds since 1970, or ''), number of facts, field, value, field, ...
--
-- Returns  for each call {{field, value, ...}, revision, state, summary, version, wake_at_ms}
--
-- - revision: the last one claimed or published. If it is '0', state and summary are ''.
-- - state: 'claimed', 'published', or 'tombstone' (see above).
-- - version: the number of merges that changed something.
-- - wake_at_ms: '' if there is no wake-up.
local open_calls, recent, first_wake_up_ms = KEYS[1], KEYS[2], tonumber(ARGV[1])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
-- The operator `<` of Lua compares strings in the collation order of the server's locale.
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
    -- The stack of Lua limits unpack, so write in slices.
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
        redis.call('ZADD', open_calls, 'NX', now_ms + first_wake_up_ms, name)
    end
    if not is_call and #stored == 0 then
        order = {}
    end
    local flat = {}
    for _, field in ipairs(order) do
        flat[#flat + 1] = field
        flat[#flat + 1] = facts[field]
    end
    local wake_at_ms = redis.call('ZSCORE', open_calls, name) or ''
    result[#result + 1] = {flat, revision, state, publication[3] or '', tostring(version), wake_at_ms}
end
return result

#!lua
-- Merge the facts of events into calls of one partition, and return each call.
--
-- A field keeps the minimum of its values, byte by byte; a field whose name starts with '>' keeps the maximum.
-- Fields with '>' alone, such as the clock of an unknown call, are not a call and are not stored.
-- A field with '+' keeps the minimum too, but is no event: merged_ms does not change with it.
-- A field with '=' is a body, whose name is its digest. It is stored with the publication, never changes, and is not returned.
-- The script knows nothing of telephony. It is idempotent, commutative and associative, so repeats and reordering do no harm.
-- A published call whose facts have expired is a tombstone: later facts do not change it.
--
-- A call is bounded, because its cost grows with every leg. An event beyond a bound is refused as a whole:
--
-- - an event of a new leg, if the call has as many legs as ARGV[3], or once has had as many bytes as ARGV[4];
-- - any event that would change a field without '>', if the call has as many bytes as ARGV[5];
-- - an event with a new body, if the call has as many bodies as ARGV[7], or would have more bytes of bodies than ARGV[8].
--
-- Bodies take nothing of the other bounds, and legs nothing of theirs.
--
-- Which legs are kept depends on the order of arrival, so the script is commutative only within the bounds. A repeat of a merged
-- event is never refused. A call with more facts than ARGV[6] was written by an earlier version. It is not read: even a timer of it
-- is refused.
--
-- KEYS[1]: sorted set of the partition's open calls, scored by wake-up time (ms since 1970)
-- KEYS[2]: sorted set of the partition's calls, scored by start (microseconds since 1970)
-- KEYS[3 ..]: of each call the hash of its facts, then the hash of its publication
-- ARGV[1]: ms from now to the first wake-up of a new call
-- ARGV[2]: ms from its start until a call leaves the second set; its facts have expired by then
-- ARGV[3 .. 8]: bounds of a call: legs, bytes for new legs, bytes for known legs, facts to read, bodies, bytes of bodies
-- ARGV[9]: number of names that follow: a leg is known if it has a fact of its prefix and one of these names
-- ARGV: then for each call name, number of events, and for each event leg, start, number of facts, field, value, field, ...
--
-- - leg: the prefix of the names of its leg's facts, or '' if the event has no leg.
-- - start: the start of the call by the event (microseconds since 1970), or ''.
--
-- Returns  for each call {refused, {field, value, ...}, revision, state, summary, version, wake_at_ms, merged_ms, uses}
--
-- - refused: positions of the refused events, the first is 0. If all of them are, it is alone, and nothing is to be evaluated.
-- - revision: the last one claimed or published. If it is '0', state and summary are ''.
-- - state: 'claimed', 'published', or 'tombstone' (see above).
-- - version: the number of merges that changed something.
-- - wake_at_ms: '' if there is no wake-up.
-- - merged_ms: when a merge last changed a field without '>' and '+' (ms since 1970), or ''.
-- - uses: the number of uses of the RequestID, see remember.lua.
local open_calls, recent, first_wake_up_ms = KEYS[1], KEYS[2], tonumber(ARGV[1])
local max_legs, new_leg_bytes, max_bytes, max_facts = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local max_bodies, max_body_bytes = tonumber(ARGV[7]), tonumber(ARGV[8])
local receipts = {unpack(ARGV, 10, 9 + ARGV[9])}
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
local function is_known(facts, leg)
    if leg == '' then
        return true
    end
    for i = 1, #receipts do
        if facts[leg .. receipts[i]] then
            return true
        end
    end
    return false
end
-- Of a call that an earlier version wrote, legs were not counted.
local function count_legs(facts)
    local legs, seen = 0, {}
    for field in pairs(facts) do
        local leg = string.match(field, '^.*:')
        if leg and not seen[leg] and is_known(facts, leg) then
            seen[leg] = true
            legs = legs + 1
        end
    end
    return legs
end
-- Return whether each of the events is refused, without reading the call. It is at a bound, or has an unknown number of legs.
local function has_no_room(facts_key, legs, arg, count)
    local size = redis.call('HLEN', facts_key)
    if size == 0 or size > max_facts then
        return size > 0
    end
    local is_new = {}
    for _ = 1, legs and count or 0 do
        local leg = ARGV[arg]
        if not is_new[leg] then
            local names = {}
            for i = 1, #receipts do
                names[i] = leg .. receipts[i]
            end
            for _, receipt in ipairs(leg == '' and {''} or redis.call('HMGET', facts_key, unpack(names))) do
                if receipt then
                    return false
                end
            end
            is_new[leg] = true
        end
        arg = arg + 3 + 2 * ARGV[arg + 2]
    end
    return legs and count > 0
end
local function would_change(facts, first, last)
    for arg = first, last, 2 do
        local field, value, before = ARGV[arg], ARGV[arg + 1], facts[ARGV[arg]]
        if string.byte(field) ~= 62 and (before == nil or is_less(value, before)) then -- '>'
            return true
        end
    end
    return false
end
-- Return the position of the body among the facts of an event without a leg, or nil.
local function body_of(leg, first, last)
    for fact = first, leg == '' and last or first - 1, 2 do
        if string.byte(ARGV[fact]) == 61 then -- '='
            return fact
        end
    end
end
local result = {}
redis.call('ZREMRANGEBYSCORE', recent, '-inf', (now_ms - tonumber(ARGV[2])) * 1000)
local arg = 10 + ARGV[9]
for key = 3, #KEYS, 2 do
    local facts_key, publication_key = KEYS[key], KEYS[key + 1]
    local name, count, refused = ARGV[arg], tonumber(ARGV[arg + 1]), {}
    arg = arg + 2
    local publication = redis.call('HMGET', publication_key, 'revision', 'state', 'summary', 'version', 'legs', 'merged_ms', 'uses',
        'bodies', 'body_bytes')
    local revision, state, version = publication[1] or '0', publication[2] or '', publication[4] or '0'
    local legs, merged_ms = tonumber(publication[5]), publication[6] or ''

    local has_room = version == '0' or (legs and legs < max_legs)
    if not has_room and has_no_room(facts_key, legs, arg, count) then
        for i = 1, count do
            refused[i] = i - 1
            arg = arg + 3 + 2 * ARGV[arg + 2]
        end
        result[#result + 1] = {refused}
    else
        local order, facts, is_call, bytes = {}, {}, false, 0
        local stored = redis.call('HGETALL', facts_key)
        for i = 1, #stored, 2 do
            is_call = is_call or string.byte(stored[i]) ~= 62 -- '>'
            order[#order + 1] = stored[i]
            facts[stored[i]] = stored[i + 1]
            if string.byte(stored[i]) ~= 43 then -- '+'
                bytes = bytes + #stored[i] + #stored[i + 1]
            end
        end
        legs = #stored == 0 and 0 or legs or count_legs(facts)
        local is_tombstone = state == 'published' and #stored == 0

        local changed, started_us = {}, nil
        local bodies, body_bytes, new_bodies = tonumber(publication[8] or '0'), tonumber(publication[9] or '0'), {}
        for position = 0, count - 1 do
            local leg, started, first, last = ARGV[arg], ARGV[arg + 1], arg + 3, arg + 2 + 2 * ARGV[arg + 2]
            arg = last + 1
            local is_new = not is_known(facts, leg)
            local body = body_of(leg, first, last)
            local is_refused = (is_new and legs >= max_legs) or (not body and bytes >= max_bytes and would_change(facts, first, last))
            if body and not new_bodies[ARGV[body]] and redis.call('HEXISTS', publication_key, ARGV[body]) == 0 then
                is_refused = bodies >= max_bodies or body_bytes + #ARGV[body + 1] > max_body_bytes
                if not is_refused then
                    bodies, body_bytes, new_bodies[ARGV[body]] = bodies + 1, body_bytes + #ARGV[body + 1], ARGV[body + 1]
                end
            end
            if not is_tombstone and is_refused then
                refused[#refused + 1] = position
            else
                if is_new then
                    legs = legs + 1
                end
                if started ~= '' then
                    started_us = math.min(started_us or math.huge, tonumber(started))
                end
                for fact = first, last, 2 do
                    local field, value = ARGV[fact], ARGV[fact + 1]
                    local before, kind = facts[field], string.byte(field)
                    local is_maximum, is_counted = kind == 62, kind ~= 43
                    is_call = is_call or not is_maximum
                    if before == nil and fact ~= body then
                        order[#order + 1] = field
                        facts[field], changed[field] = value, value
                        bytes = bytes + (is_counted and #field + #value or 0)
                    elseif before and value ~= before and is_less(value, before) ~= is_maximum then
                        facts[field], changed[field] = value, value
                        bytes = bytes + (is_counted and #value - #before or 0)
                    end
                end
                if bytes >= new_leg_bytes then
                    legs = math.max(legs, max_legs)
                end
            end
        end
        local writes = {}
        if is_call and not is_tombstone then
            for field, value in pairs(changed) do
                if string.byte(field) ~= 62 and string.byte(field) ~= 43 then
                    merged_ms = string.format('%.0f', now_ms)
                end
                writes[#writes + 1] = field
                writes[#writes + 1] = value
            end
        end
        -- The stack of Lua limits unpack, so write in slices.
        for first = 1, #writes, 1000 do
            redis.call('HSET', facts_key, unpack(writes, first, math.min(first + 999, #writes)))
        end
        if next(new_bodies) and not is_tombstone then
            for field, value in pairs(new_bodies) do
                redis.call('HSET', publication_key, field, value)
            end
            redis.call('HSET', publication_key, 'bodies', bodies, 'body_bytes', body_bytes)
        end
        if started_us and not is_tombstone then
            redis.call('ZADD', recent, 'LT', string.format('%.0f', started_us), name)
        end
        if #writes > 0 then
            version = string.format('%.0f', version + 1)
            if tonumber(publication[5]) == legs then
                redis.call('HSET', publication_key, 'version', version, 'merged_ms', merged_ms)
            else
                redis.call('HSET', publication_key, 'version', version, 'merged_ms', merged_ms, 'legs', legs)
            end
        end
        if is_call and not is_tombstone and (state == '' or state == 'claimed') then
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
        state = is_tombstone and 'tombstone' or state
        local is_none_left = count > 0 and #refused == count
        result[#result + 1] = is_none_left and {refused} or {refused, flat, revision, state, publication[3] or '', version, wake_at_ms, merged_ms, publication[7] or '1'}
    end
end
return result

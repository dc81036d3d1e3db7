#!lua
-- Add what a worker observed of one PBX, and take the dials and RequestIDs that have become final.
--
-- A dial is final after the time in which something of it should have been heard. A RequestID is final if later ones were in use
-- some time ago. If it is unknown by then, it was skipped.
--
-- All but the counts are joins (bits, maxima, sets), so a repeat changes nothing else. The bitmap of RequestIDs is a ring around
-- `done`, the last final id. It has the ids up to half a ring before and after that id. Ids elsewhere are `far`. Ten of them in
-- a row are a counter that was reset, so that the ring begins again there.
--
-- KEYS[1]: hash of the PBX: `last`, `verdict`, `ids:...`, `<hour>:<count>`, `name:...`, `arrived:<parameter>`
-- KEYS[2]: bitmap of RequestIDs, a ring
-- KEYS[3]: sorted set of dials, scored by their time (ms since 1970), or by 10^15 plus the time at which they were taken
-- KEYS[4 ..]: bitmaps of days, a bit for each minute
-- ARGV[1]: JSON with all observations
--
-- - last: ms since 1970, or 0.
-- - minutes: for each of KEYS[4 ..] a list of bits.
-- - ids: RequestIDs.
-- - dials: pairs of a RequestID and a time (ms since 1970).
-- - counts: numbers by name.
-- - unknown, arrived, missing: names of parameters.
-- - ahead: ms by which the clock is ahead, absent if unknown.
-- - verdict: the last judgement, absent if there is none.
--
-- ARGV[2]: ms since 1970 until which everything is folded, or '' if nothing can be final
-- ARGV[3]: ms after which something of a dial should have been heard
-- ARGV[4]: ms after which ids are final
-- ARGV[5]: ids in a row that are a jump of the counter
-- ARGV[6], ARGV[7]: seconds to keep the hash, and the bitmap of a day
-- ARGV[8]: number of ids in the ring
--
-- Returns  {ids in use, ids skipped, dial, dial, ...} of what has become final
local HOURS, MOST_NAMES, NAME_MS, MOST_DIALS, MOST_FINAL, MOST_FAR = 24, 20, 3600000, 10000, 5000, 10
local TAKEN, TAKEN_MS = 1e15, 3600000
local hash, ring, dials = KEYS[1], KEYS[2], KEYS[3]
local seen, folded_ms, ring_ids = cjson.decode(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[8])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local this_hour = math.floor(now_ms / 3600000)
local function whole(number)
    return string.format('%.0f', number)
end
local function get(field)
    return tonumber(redis.call('HGET', hash, field) or nil)
end
local function set(field, number)
    redis.call('HSET', hash, field, whole(number))
end
local function count(name, by)
    if by ~= 0 then
        redis.call('HINCRBY', hash, whole(this_hour) .. ':' .. name, whole(by))
    end
end

if seen.last > (get('last') or 0) then
    set('last', seen.last)
end
if seen.verdict then
    redis.call('HSET', hash, 'verdict', seen.verdict)
end
for i, minutes in ipairs(seen.minutes) do
    for _, minute in ipairs(minutes) do
        redis.call('SETBIT', KEYS[3 + i], whole(minute), 1)
    end
    redis.call('EXPIRE', KEYS[3 + i], ARGV[7])
end
for name, by in pairs(seen.counts) do
    count(name, by)
end
if seen.ahead then
    local field = whole(this_hour) .. ':ahead'
    local before = get(field)
    if not before or seen.ahead > before then
        set(field, seen.ahead)
    end
end

local names = 0
for _, field in ipairs(redis.call('HKEYS', hash)) do
    local hour = tonumber(string.match(field, '^(%d+):') or nil)
    local name = string.match(field, '^name:(.*)$')
    if hour and hour <= this_hour - HOURS then
        redis.call('HDEL', hash, field)
    elseif name then
        if now_ms - (get('name_at:' .. name) or 0) > NAME_MS then
            redis.call('HDEL', hash, field, 'name_at:' .. name)
        else
            names = names + 1
        end
    end
end
local function count_name(name)
    local is_known = redis.call('HEXISTS', hash, 'name:' .. name) == 1
    if is_known or names < MOST_NAMES then
        names = names + (is_known and 0 or 1)
        redis.call('HINCRBY', hash, 'name:' .. name, 1)
        set('name_at:' .. name, now_ms)
    end
end
for _, name in ipairs(seen.unknown) do
    count_name('+' .. name)
end
for _, name in ipairs(seen.missing) do
    if redis.call('HEXISTS', hash, 'arrived:' .. name) == 1 then
        count_name('-' .. name)
    end
end
for _, name in ipairs(seen.arrived) do
    set('arrived:' .. name, now_ms)
    redis.call('HDEL', hash, 'name:-' .. name, 'name_at:-' .. name)
end

-- Dials that were taken are kept for a while, beyond all times: one that is delivered again is not counted again.
local new_dials = 0
for _, dial in ipairs(seen.dials) do
    new_dials = new_dials + redis.call('ZADD', dials, 'NX', whole(dial[2]), whole(dial[1]))
end
count('dials', new_dials)
redis.call('ZREMRANGEBYSCORE', dials, whole(TAKEN), whole(TAKEN + now_ms - TAKEN_MS))
if redis.call('ZCARD', dials) > MOST_DIALS then
    redis.call('ZREMRANGEBYSCORE', dials, whole(TAKEN), '+inf')
    redis.call('ZREMRANGEBYRANK', dials, 0, -MOST_DIALS - 1)
end

local done, top, top_ms, highest = get('ids:done'), get('ids:top'), get('ids:top_ms'), get('ids:highest')
local far = get('ids:far') or 0
table.sort(seen.ids)
for _, id in ipairs(seen.ids) do
    done = done or id - 1
    if math.abs(id - done) < ring_ids / 2 then
        redis.call('SETBIT', ring, whole(id % ring_ids), 1)
        if id > (highest or done) then
            highest, far = id, 0
        end
    else
        far = far + 1
        if far >= MOST_FAR then
            redis.call('DEL', ring)
            done, top, highest, far = id, nil, nil, 0
        end
    end
end
local used, skipped, row = 0, 0, 0
local function end_row(last)
    if row > 0 and row < tonumber(ARGV[5]) then
        skipped = skipped + row
        set('ids:skipped', last)
    end
    row = 0
end
if folded_ms and top and folded_ms - top_ms > tonumber(ARGV[4]) then
    local last = math.min(top, done + MOST_FINAL)
    for id = done + 1, last do
        if redis.call('GETBIT', ring, whole(id % ring_ids)) == 1 then
            end_row(id - 1)
            used = used + 1
        else
            row = row + 1
        end
        redis.call('SETBIT', ring, whole((id + ring_ids / 2) % ring_ids), 0)
    end
    end_row(last)
    done = last
    count('ids', used)
    count('gaps', skipped)
    top = top > done and top or nil
end
if done and not top and highest and highest > done then
    top, top_ms = highest, now_ms
end
for field, value in pairs({done = done or '', top = top or '', top_ms = top_ms or '', highest = highest or '', far = far}) do
    redis.call('HSET', hash, 'ids:' .. field, value == '' and '' or whole(value))
end

local result = {used, skipped}
if folded_ms then
    local due = redis.call('ZRANGEBYSCORE', dials, '-inf', whole(folded_ms - tonumber(ARGV[3])), 'LIMIT', 0, 100)
    for _, id in ipairs(due) do
        redis.call('ZADD', dials, whole(TAKEN + now_ms), id)
        result[#result + 1] = id
    end
end
for i = 1, 3 do
    redis.call('EXPIRE', KEYS[i], ARGV[6])
end
return result

-- Tell the watermark: the time until which everything that ingress received has been folded.
--
-- Every worker tells the oldest raw message it has in hand (hand.lua). What waits in the queue is younger than that, for a
-- queue gives its oldest first. The exception is what a worker gave back that is gone: until every other one has
-- taken something new, what it told last still counts.
--
-- KEYS[1]  hash of hands, see hand.lua
-- KEYS[2]  hash of spools, see spool.lua
-- ARGV[1]  consumers of the queue
-- ARGV[2]  messages that wait in the queue
-- ARGV[3]  ms after which a worker that has not told again is missed
-- ARGV[4]  ms after which it is gone in any case: the broker has given its messages back
-- ARGV[5]  ms after which a spool of which nothing was heard is forgotten: every call must end
-- Returns  {watermark in ms since 1970, '' where nobody can tell}
local hands_key, spools_key = KEYS[1], KEYS[2]
local consumers, waiting = tonumber(ARGV[1]), tonumber(ARGV[2])
local missed_ms, gone_ms, forget_ms = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local hands, fresh, present, somebody_has = {}, 0, 0, false
local stored = redis.call('HGETALL', hands_key)
for i = 1, #stored, 2 do
    local oldest, since, reported, gone, consumes = string.match(stored[i + 1], '^(%d*) (%d*) (%d+) (%d*) (%d)$')
    if not reported then
        redis.call('HDEL', hands_key, stored[i])
        oldest, since, reported, gone, consumes = '', '', '0', tostring(now_ms), '0'
    end
    local hand = {name = stored[i], value = stored[i + 1], oldest = oldest, reported = tonumber(reported), gone = tonumber(gone),
        since = tonumber(since), is_fresh = now_ms - tonumber(reported) <= missed_ms and gone == ''}
    hands[#hands + 1] = hand
    if hand.is_fresh and consumes == '1' then
        fresh = fresh + 1
    end
    if consumes == '1' and not hand.gone then
        present = present + 1
    end
end

local function has_been_passed(gone)
    for _, hand in ipairs(hands) do
        if hand.is_fresh and hand.since and hand.since <= gone then
            return false
        end
    end
    return fresh > 0
end

-- Nothing is folded that was not received yet: a clock that is ahead, or a time that is none, closes no call.
local watermark = now_ms
for _, hand in ipairs(hands) do
    -- Each worker that tells is a consumer the broker knows: those that do not tell have no connection any more.
    if not hand.is_fresh and not hand.gone and ((consumers > 0 and consumers == fresh) or now_ms - hand.reported > gone_ms) then
        hand.gone = now_ms
        redis.call('HSET', hands_key, hand.name, (string.gsub(hand.value, '^(%d* %d* %d+) ', '%1 ' .. now_ms)))
    end
    if hand.gone and hand.gone < now_ms and has_been_passed(hand.gone) then
        redis.call('HDEL', hands_key, hand.name)
    else
        local bound = hand.oldest == '' and hand.reported or tonumber(hand.oldest)
        somebody_has = somebody_has or hand.oldest ~= ''
        watermark = math.min(watermark, bound)
    end
end
if #hands == 0 or watermark <= 0 or consumers > present or (waiting > 0 and not somebody_has) then
    return {''}
end

local spools = redis.call('HGETALL', spools_key)
for i = 1, #spools, 2 do
    local oldest, heard = string.match(spools[i + 1], '^(%d*) %S* (%d+)$')
    if not heard or now_ms - tonumber(heard) > forget_ms then
        redis.call('HDEL', spools_key, spools[i])
    elseif oldest ~= '' then
        watermark = math.min(watermark, tonumber(oldest))
    end
end
return {string.format('%.0f', watermark)}

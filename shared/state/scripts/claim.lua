#!lua
-- Claim publications of calls of one partition, so that workers that see the same end publish it once.
--
-- A claim stores the outbox: the messages to publish. A worker that takes over the claim after a crash publishes the same bytes
-- under the same id. A claim is held until the revision is marked as published or the lease expires.
-- Idempotent: a holder that asks again gets 'yours' and the stored outbox.
--
-- KEYS[i]: hash of the publication of call i, see keys.py
-- ARGV[1]: name of the holder
-- ARGV[2]: lease in ms
-- ARGV: then for each call revision, outbox ('' takes over an existing claim), summary, version of the facts behind the outbox
--
-- Returns  for each call {code, outbox}; the outbox is '' unless the code is 'yours'
--
-- - 'yours': publish this outbox. After a take-over it is the stored one.
-- - 'held': another worker holds the claim. Ask again.
-- - 'published': there is nothing to do.
-- - 'lost': the claim or this version of the facts no longer exists. Fold the facts again.
local holder, lease_ms = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local result = {}
for i, key in ipairs(KEYS) do
    local arg = 4 * i - 1
    local wanted, outbox, summary, seen = tonumber(ARGV[arg]), ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
    local stored = redis.call('HMGET', key, 'revision', 'state', 'holder', 'until_ms', 'outbox', 'version')
    local revision, state = tonumber(stored[1] or '0'), stored[2] or ''
    if state == 'claimed' and stored[3] ~= holder and tonumber(stored[4]) > now_ms then
        result[i] = {'held', ''}
    elseif state == 'claimed' then
        redis.call('HSET', key, 'holder', holder, 'until_ms', now_ms + lease_ms)
        result[i] = {'yours', stored[5]}
    elseif wanted <= revision then
        result[i] = {'published', ''}
    elseif outbox == '' or wanted > revision + 1 or stored[6] ~= seen then
        -- Redis lost unwritten data in a crash, or more facts have arrived. Either way this outbox is out of date.
        result[i] = {'lost', ''}
    else
        redis.call('HSET', key, 'revision', wanted, 'state', 'claimed', 'holder', holder,
            'until_ms', now_ms + lease_ms, 'outbox', outbox, 'summary', summary, 'seen', seen)
        result[i] = {'yours', outbox}
    end
end
return result

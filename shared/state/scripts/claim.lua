-- Claim the publication of revisions of calls of one partition, so that workers that see the same end publish it once.
--
-- The claim stores what is to be published (the outbox): whoever takes the claim over after a crash publishes the same
-- bytes under the same id. A claim is held until it is marked published or its lease runs out.
--
-- KEYS[i]   hash of the i-th call's publication: revision, state (claimed | published), holder, until_ms, outbox,
--           summary (of what was published last), version (of the facts), seen (the version that the outbox was made of)
-- ARGV[1]   name of the holder
-- ARGV[2]   lease in ms
-- ARGV      then for each call: revision to publish, outbox ('' to take over a claim that was seen), its summary, version of
--           the facts it was made of
-- Returns   for each call: {code, outbox}: 'yours' publish this outbox (the stored one after a take-over);
--           'held' by another worker, ask again; 'published' there is nothing to do; 'lost' what the caller has seen, a claim or
--           the facts of this version, is not there (any more): fold the facts again (outbox '' in all three)
-- Idempotent: the holder that asks again gets 'yours' and the stored outbox.
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
        -- Redis forgot what it had not written when it failed, or somebody has told more: either way this outbox is not the truth.
        result[i] = {'lost', ''}
    else
        redis.call('HSET', key, 'revision', wanted, 'state', 'claimed', 'holder', holder,
            'until_ms', now_ms + lease_ms, 'outbox', outbox, 'summary', summary, 'seen', seen)
        result[i] = {'yours', outbox}
    end
end
return result

#!lua
-- Restore publications of calls of one partition that Redis has lost or never had, from another source.
--
-- A call stays as it is if Redis has this revision as published, or a higher one as claimed or published.
-- If the caller has not seen every fact, the call gets a wake-up that is due at once, as in mark.lua.
-- Idempotent.
--
-- KEYS[1]: sorted set of the partition's open calls, scored by wake-up time (ms since 1970)
-- KEYS[2i ..]: of call i, the hash of its facts, then the hash of its publication
-- ARGV[1]: seconds to keep the facts of a published call
-- ARGV[2]: seconds to keep its publication
-- ARGV: then for each call name, last revision, its summary, version of the facts that the caller saw, wake-up, last event
--
-- The last event is a time (ms since 1970) or '' for now. It counts as the last change of the facts, if Redis does not know that.
-- A wake-up is a time (ms since 1970), '' for none, or 'tombstone', which deletes the facts because they are incomplete.
--
-- Returns  nothing
local open_calls, retain_s, tombstone_s = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
for key = 2, #KEYS, 2 do
    local arg = 3 + (key - 2) / 2 * 6
    local name, revision, summary, version, wake_at_ms = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3], ARGV[arg + 4]
    local last_event_ms = ARGV[arg + 5]
    local facts_key, publication_key = KEYS[key], KEYS[key + 1]
    local stored = redis.call('HMGET', publication_key, 'revision', 'state', 'version')
    local before = tonumber(stored[1] or '0')
    if before < tonumber(revision) or (before == tonumber(revision) and stored[2] ~= 'published') then
        redis.call('HSET', publication_key, 'revision', revision, 'state', 'published', 'summary', summary)
        redis.call('HDEL', publication_key, 'outbox', 'holder', 'until_ms', 'seen')
        redis.call('HSETNX', publication_key, 'merged_ms', last_event_ms ~= '' and last_event_ms or now_ms)
        if wake_at_ms == 'tombstone' then
            redis.call('DEL', facts_key)
            wake_at_ms = ''
        elseif (stored[3] or '') ~= version then
            wake_at_ms = '0'
        end
        if wake_at_ms == '' then
            redis.call('EXPIRE', facts_key, retain_s)
            redis.call('EXPIRE', publication_key, tombstone_s)
            redis.call('ZREM', open_calls, name)
        else
            redis.call('PERSIST', facts_key)
            redis.call('PERSIST', publication_key)
            redis.call('ZADD', open_calls, wake_at_ms, name)
        end
    end
end

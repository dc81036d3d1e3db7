#!lua flags=allow-oom
-- End the rebuild of a partition. If events wait, they are folded before anything else: the partition is drained until none is left.
--
-- KEYS[1]: hash of the position, see position.lua
-- KEYS[2]: list of the events that wait
-- ARGV[1]: the generation of the caller
--
-- Returns  'draining' or 'ready', or '' if the partition has another generation or is not being rebuilt
local stored = redis.call('HMGET', KEYS[1], 'generation', 'state')
if stored[1] ~= ARGV[1] or stored[2] == 'ready' then
    return ''
end
local state = redis.call('EXISTS', KEYS[2]) == 1 and 'draining' or 'ready'
redis.call('HSET', KEYS[1], 'state', state)
return state

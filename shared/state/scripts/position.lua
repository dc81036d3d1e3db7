#!lua
-- Compare the position of a partition with what the caller knows of it, count the write, and run a script.
--
-- The text of the script is ahead of this one, as the function `script` (`Script.guarded`). It sees neither the last key nor the last
-- arguments. A position that is older than what the caller knows shows that Redis has lost writes: the script is then not run.
-- Evicted keys are lost state too. Redis evicts before a script begins, and never while it runs. Only a merge compares their number.
-- A claim names the version of its facts, and a publication that was evicted has none.
--
-- KEYS[last]: hash of the position: generation, state, replaced, evicted, and for each writer its number of writes, see positions.py
-- ARGV[last]: 'e' compares evicted keys, 'w' counts a write
-- ARGV[last - 1]: the expected state
-- ARGV[last - 2]: the expected generation
-- ARGV[last - 3]: number of writers that follow
-- ARGV: before these, for each writer its field and the number of writes that the caller knows; the caller is the last one
--
-- Returns  {number of writes of the caller, what the script returns}, or an error with the code STATE
local position, last = KEYS[#KEYS], #ARGV
local mode, writers = ARGV[last], tonumber(ARGV[last - 3])
local first = last - 3 - 2 * writers
local fields = {'generation', 'state', 'evicted'}
for i = 0, writers - 1 do
    fields[i + 4] = ARGV[first + 2 * i]
end
local stored = redis.call('HMGET', position, unpack(fields))
local is_known = stored[1] == ARGV[last - 2] and stored[2] == ARGV[last - 1]
for i = 0, writers - 1 do
    is_known = is_known and tonumber(stored[i + 4] or '0') >= tonumber(ARGV[first + 2 * i + 1])
end
if is_known and string.find(mode, 'e') then
    local info = redis.pcall('INFO', 'stats')
    local evicted = type(info) == 'string' and string.match(info, 'evicted_keys:(%d+)') or '0' -- the user may not ask
    is_known = evicted == '0' or evicted == stored[3]
    if is_known and evicted ~= stored[3] then
        redis.call('HSET', position, 'evicted', evicted)
    end
end
if not is_known then
    return redis.error_reply('STATE the partition is not as the caller knows it')
end
local own = ARGV[last - 5]
KEYS[#KEYS] = nil
for i = last, first, -1 do
    ARGV[i] = nil
end
local writes = tonumber(stored[writers + 3] or '0')
if string.find(mode, 'w') then
    writes = redis.call('HINCRBY', position, own, 1)
end
return {writes, script() or false}

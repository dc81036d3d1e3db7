#!lua flags=no-writes
-- Read some fields of the hashes of one partition. One command for each hash would cost a client several times as much.
--
-- KEYS[i]: hash i
-- ARGV: for each hash the number of the names, then the names
--
-- Returns  for each hash {name, value, ...}, without the fields that it does not have
local STEP = 1000 -- Lua can pass several times as many arguments
local result, at = {}, 1
for i, key in ipairs(KEYS) do
    local fields, last = {}, at + tonumber(ARGV[at])
    for from = at + 1, last, STEP do
        local names = {unpack(ARGV, from, math.min(from + STEP - 1, last))}
        for j, value in ipairs(redis.call('HMGET', key, unpack(names))) do
            if value then
                fields[#fields + 1] = names[j]
                fields[#fields + 1] = value
            end
        end
    end
    result[i] = fields
    at = last + 1
end
return result

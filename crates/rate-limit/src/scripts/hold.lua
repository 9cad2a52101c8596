-- Holds on to units at the same time, or gives them back.
--
-- KEYS     sets of units, in the order of ARGV[1].
-- ARGV[1]  for each key: how long to hold on in microseconds, or 0 to give back (64 bits), how many units (32 bits), and their
--          names (16 bytes each).
-- Reply    how many units were there.

local call, unpack_numbers, pcall = redis.call, struct.unpack, redis.pcall
local time = call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local text, at, there = ARGV[1], 1, 0
for place = 1, #KEYS do
  local lifetime, units
  lifetime, units, at = unpack_numbers('<I8I4', text, at)
  local key = KEYS[place]
  for _ = 1, units do
    local name = string.sub(text, at, at + 15)
    at = at + 16
    if lifetime == 0 then
      local removed = pcall('ZREM', key, name)
      there = there + (type(removed) == 'number' and removed or 0)
    else
      -- Only what is still there: nobody may hold what was taken from him.
      local score = pcall('ZSCORE', key, name)
      if type(score) == 'string' then
        call('ZADD', key, now + lifetime, name)
        there = there + 1
      end
    end
  end
  if lifetime > 0 and there > 0 then
    call('PEXPIRE', key, math.ceil(lifetime / 1000) + 1000)
  end
end
return there

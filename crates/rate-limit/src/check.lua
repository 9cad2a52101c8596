-- Admits waiting requests to fixed windows: exactly, and several policies all or nothing.
--
-- KEYS     one counter per group and policy, in the order of ARGV[2]. A counter is "<window's index>:<used>".
-- ARGV[1]  every policy: limit, window in microseconds (two little-endian 64-bit integers).
-- ARGV[2]  every group, which is one identity with one set of policies: waiting requests (32 bits), seed of the
--          window's offset (32 bits), number of policies (8 bits), the policies' numbers from 0 (8 bits each).
-- Reply    Redis's time in microseconds; then for each group the number admitted and, for each of its policies, what
--          is left of the limit and the microseconds until the window ends.
local call, unpack_numbers, byte = redis.call, struct.unpack, string.byte
local match, format, floor = string.match, string.format, math.floor

local time = call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local limits, windows, at = {}, {}, 1
for policy = 0, #ARGV[1] / 16 - 1 do
  limits[policy], windows[policy], at = unpack_numbers('<I8I8', ARGV[1], at)
end

local stored = call('MGET', unpack(KEYS))
-- What this call has seen and written, by key: two groups may share a counter.
local indexes, counts = {}, {}
-- Of the policies of one group.
local left, ends = {}, {}
local reply, length, groups, first = { now }, 1, ARGV[2], 0

at = 1
while at <= #groups do
  local waiting, seed, policies
  waiting, seed, policies, at = unpack_numbers('<I4I4I1', groups, at)
  local admitted = waiting

  for i = 1, policies do
    local policy, key = byte(groups, at + i - 1), KEYS[first + i]
    local window = windows[policy]
    local offset = floor(seed / 4294967296 * window)
    local index, used = indexes[key], counts[key]
    if not index then
      index, used = floor((now - offset) / window), 0
      if stored[first + i] then
        local old_index, old_used = match(stored[first + i], '^(%d+):(%d+)$')
        old_index = tonumber(old_index)
        -- A clock that stepped back a little stays in the window it had reached.
        if old_index == index or old_index == index + 1 then
          index, used = old_index, tonumber(old_used)
        end
      end
      indexes[key], counts[key] = index, used
    end
    left[i] = limits[policy] - used
    if left[i] < 0 then left[i] = 0 end
    ends[i] = (index + 1) * window + offset - now
    if left[i] < admitted then admitted = left[i] end
  end

  reply[length + 1] = admitted
  length = length + 1
  for i = 1, policies do
    local key = KEYS[first + i]
    local lifetime = floor(ends[i] / 1000) + 1001
    if admitted > 0 then
      counts[key] = counts[key] + admitted
      call('SET', key, format('%.0f:%.0f', indexes[key], counts[key]), 'PX', lifetime)
    elseif stored[first + i] and call('PTTL', key) == -1 then
      call('PEXPIRE', key, lifetime)
    end
    reply[length + 1], reply[length + 2] = left[i] - admitted, ends[i]
    length = length + 2
  end
  first, at = first + policies, at + policies
end
return reply

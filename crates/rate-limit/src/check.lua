-- Admits waiting requests to fixed windows: exactly, and several policies all or nothing.
--
-- KEYS     one counter per group and policy, in the order of ARGV[2]. A counter is one integer: the number of requests
--          used in its lower 40 bits, above them 1 + the window's index modulo 8191, which is never 0. A counter lives for
--          its window and a second, so an index does not come round again while it lives.
-- ARGV[1]  every policy: limit, window in microseconds (two little-endian 64-bit integers).
-- ARGV[2]  every group, which is one identity with one set of policies: waiting requests (32 bits), seed of the
--          window's offset (32 bits), number of policies (8 bits), the policies' numbers from 0 (8 bits each).
-- Reply    Redis's time in microseconds; then for each group the number admitted and, for each of its policies, what
--          is left of the limit and the microseconds until the window ends.
--
-- All who wait are added at first, with one INCRBY, which keeps the counter's lifetime; those who must not pass are
-- taken away again. So a counter that is not exhausted costs one command.
local call, unpack_numbers, byte, floor = redis.call, struct.unpack, string.byte, math.floor
local USED, INDEXES = 1099511627776, 8191

local time = call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local limits, windows, at = {}, {}, 1
for policy = 0, #ARGV[1] / 16 - 1 do
  limits[policy], windows[policy], at = unpack_numbers('<I8I8', ARGV[1], at)
end

-- Of the policies of one group: what is left before its requests, and when the window ends.
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
    local index = floor((now - offset) / window)
    local value = redis.pcall('INCRBY', key, waiting)
    -- Something that no script of ours wrote counts as nothing.
    if type(value) == 'table' then value = waiting end
    local stored = floor(value / USED) - 1
    if stored == (index + 1) % INDEXES then
      -- A clock that stepped back a little stays in the window it had reached.
      index = index + 1
    elseif stored ~= index % INDEXES then
      -- A new counter, or one of a window that is over.
      value = (1 + index % INDEXES) * USED + waiting
      call('SET', key, value, 'PX', floor(((index + 1) * window + offset - now) / 1000) + 1001)
    end
    left[i] = limits[policy] - (value % USED - waiting)
    if left[i] < 0 then left[i] = 0 end
    ends[i] = (index + 1) * window + offset - now
    if left[i] < admitted then admitted = left[i] end
  end

  reply[length + 1] = admitted
  length = length + 1
  for i = 1, policies do
    if admitted < waiting then
      local key = KEYS[first + i]
      call('DECRBY', key, waiting - admitted)
      -- Whoever took its lifetime away must not block a client for ever.
      if call('PTTL', key) == -1 then call('PEXPIRE', key, floor(ends[i] / 1000) + 1001) end
    end
    reply[length + 1], reply[length + 2] = left[i] - admitted, ends[i]
    length = length + 2
  end
  first, at = first + policies, at + policies
end
return reply

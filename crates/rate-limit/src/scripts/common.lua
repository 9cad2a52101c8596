-- What the scripts share: how rules and counters are read.
--
-- All arithmetic is on whole numbers below 2^53, where Lua's are exact. Times are microseconds, of Redis's clock since the
-- Unix epoch. A counter that cannot be read, because something else wrote it, counts as nothing.
local call, try = redis.call, redis.pcall
local unpack_numbers, pack_numbers, byte, sub = struct.unpack, struct.pack, string.byte, string.sub
local floor, ceil, min, max, number = math.floor, math.ceil, math.min, math.max, tonumber

-- A counter of a fixed window is one integer: units in the lower 40 bits, above them 1 + the window's index modulo 8190. A
-- counter lives for its window and a second, so that an index does not come round again while it lives.
local USED, INDEXES = 1099511627776, 8190
-- Whoever is blocked has this at the place of the counter, until it expires. No counter has 8191 above its units.
local BLOCKED, BLOCKED_TEXT = 8191 * USED, '9006099743113216'

local FIXED_WINDOW, GCRA, SLIDING_COUNTER, SLIDING_WINDOW, SLIDING_LOG, PACING, CONCURRENCY = 0, 1, 2, 3, 4, 5, 6

local time = call('TIME')
local now = number(time[1]) * 1000000 + number(time[2])

-- Rules are read when they are met: algorithm and shadow (8 bits each), cost (32), and six numbers (64).
local rules = {}
local function rule_of(index)
  local rule = rules[index]
  if not rule then
    rule = {}
    rule.algorithm, rule.shadow, rule.cost, rule.limit, rule.window, rule.a, rule.b, rule.c, rule.d =
      unpack_numbers('<I1I1I4I8I8I8I8I8I8', ARGV[1], index * 54 + 1)
    rules[index] = rule
  end
  return rule
end

local function milliseconds(lifetime)
  return ceil(lifetime / 1000) + 1000
end

-- Where windows begin differs from identity to identity.
local function offset_of(seed, window)
  return floor(seed / 4294967296 * window)
end

-- The time of so many units of a bucket: whole microseconds, and a fraction with the rule's denominator.
local function time_of(rule, units)
  local rest = units * rule.a
  return units * rule.window + floor(rest / rule.b), rest % rule.b
end

-- When a bucket is empty again, never before now and never later than when it is full; nil when it is not there.
local function read_bucket(rule, text)
  if not text or #text ~= 16 then
    return nil
  end
  local whole, part = unpack_numbers('<I8I8', text)
  local full, full_part = time_of(rule, rule.limit)
  full = now + full + rule.c
  if part >= rule.b then
    part = 0
  end
  if whole < now then
    return now, 0
  elseif whole > full or whole == full and part > full_part then
    return full, full_part
  end
  return whole, part
end

-- The window that a sliding counter is in, what it has counted in it and in the one before. A clock that stepped back a little
-- stays in the window it had reached.
local function read_pair(rule, seed, text)
  local at = now - offset_of(seed, rule.window)
  local index = floor(at / rule.window)
  if not text or #text ~= 24 then
    return index, 0, 0
  end
  local stored, current, previous = unpack_numbers('<I8I8I8', text)
  if stored == index or stored == index + 1 then
    return stored, current, previous
  elseif stored == index - 1 then
    return index, 0, current
  end
  return index, 0, 0
end

-- The part of a window that a sliding window is in, and what it has counted in it and in the ten before, the oldest first.
local function read_parts(rule, seed, text, counts)
  local index = floor((now - offset_of(seed, rule.window)) / rule.a)
  for place = 1, 11 do
    counts[place] = 0
  end
  if text and #text == 52 then
    local stored = unpack_numbers('<I8', text)
    if stored > index and stored <= index + 10 then
      index = stored
    end
    local passed = index - stored
    if passed >= 0 and passed <= 10 then
      for place = 1, 11 - passed do
        counts[place] = unpack_numbers('<I4', text, 9 + 4 * (place + passed - 1))
      end
    end
  end
  return index
end

local function write_parts(key, rule, seed, index, counts)
  local text = pack_numbers('<I8I4I4I4I4I4I4I4I4I4I4I4', index, counts[1], counts[2], counts[3], counts[4], counts[5],
    counts[6], counts[7], counts[8], counts[9], counts[10], counts[11])
  call('SET', key, text, 'PX', milliseconds((index + 11) * rule.a + offset_of(seed, rule.window) - now))
end

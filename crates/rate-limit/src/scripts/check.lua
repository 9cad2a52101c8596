-- Admits waiting requests: as many of each group as all its policies allow, and those count under every one of them.
--
-- KEYS     one counter per group and policy, in the order of ARGV[2].
-- ARGV[1]  the rules; see rule_of.
-- ARGV[2]  of what is left, every worker is granted one so-manieth ahead (32 bits); then every group, which is requests that
--          agree in everything: those that wait, those wanted ahead, the cost of each (32 bits each), the number of its
--          policies (8 bits); then for each policy the rule's number from 0 (16 bits), the seed of the identity's windows (32
--          bits) and, if it counts at the same time, the number of the first unit (64 bits).
-- ARGV[3]  eight bytes that name this worker's units at the same time.
-- Reply    signed numbers of 64 bits: Redis's time; then for each group how many were admitted, those granted ahead
--          included, and for each of its policies what is left and how long to wait: for a request like these, if nothing is
--          left for one (-1: for ever), otherwise until there is more. A policy in shadow mode says with a negative number how
--          many it would have denied. One that paces says how long the last one has to wait, which is negative if its turn
--          was earlier.
--
-- Those of a fixed window are counted first and, if they must not pass, taken back: one command while there is room.

-- What a policy has for the group at hand.
local parts = {}

local function is_blocked(part, value)
  if value ~= BLOCKED_TEXT then
    return false
  end
  local left = call('PTTL', part.key)
  -- Whoever took its lifetime away must not block a client for ever.
  if left < 0 then
    return false
  end
  part.blocked = max(left, 1) * 1000
  return true
end

-- The value of a counter that is a string; nil if there is none, and for whoever is blocked.
local function read(part)
  local value = try('GET', part.key)
  if type(value) ~= 'string' or is_blocked(part, value) then
    return nil
  end
  return value
end

-- Whether a counter that is a list or a set can be used; what is none is removed.
local function is_usable(part, answer)
  if type(answer) ~= 'table' or not answer.err then
    return true
  end
  local value = try('GET', part.key)
  if is_blocked(part, value) then
    return false
  end
  call('DEL', part.key)
  return true
end

-- By algorithm: how many units are left, before any is taken. `most` are the requests that may be admitted at most.
local look = {}
-- By algorithm: takes so many units, and gives how many are left after them and how long to wait.
local take = {}

-- Counts so many units in the window that an identity is in, and gives what was left before and when the window ends; nothing,
-- and uncounted, for whoever is blocked. With no units it only looks.
local function count_in_window(rule, seed, key, units)
  local window = rule.window
  local offset = floor(seed / 4294967296 * window)
  local index, value = floor((now - offset) / window)
  if units > 0 then
    value = try('INCRBY', key, units)
  else
    value = try('GET', key)
    value = type(value) == 'string' and number(value)
  end
  if type(value) ~= 'number' then
    value = units
  end
  if value >= BLOCKED then
    -- Whoever took its lifetime away must not block a client for ever.
    if call('PTTL', key) >= 0 then
      call('DECRBY', key, units)
      return nil
    end
    value = units
  end
  local stored = floor(value / USED) - 1
  if stored == (index + 1) % INDEXES then
    -- A clock that stepped back a little stays in the window it had reached.
    index = index + 1
  elseif stored ~= index % INDEXES then
    -- A new counter, or one of a window that is over.
    value = (1 + index % INDEXES) * USED + units
    if units > 0 then
      call('SET', key, value, 'PX', milliseconds((index + 1) * window + offset - now))
    end
  end
  return rule.limit - (value % USED - units), (index + 1) * window + offset - now
end

look[FIXED_WINDOW] = function(part, most)
  local units = most * part.units
  local left, ends = count_in_window(part.rule, part.seed, part.key, units)
  part.reserved, part.ends = units, ends
  if not left then
    part.blocked = max(call('PTTL', part.key), 1) * 1000
  end
  return left or 0
end

take[FIXED_WINDOW] = function(part, left, taken)
  local excess = part.reserved - taken
  if excess > 0 then
    call('DECRBY', part.key, excess)
    if call('PTTL', part.key) == -1 then
      call('PEXPIRE', part.key, milliseconds(part.ends))
    end
  end
  return max(left - taken, 0), part.ends
end

-- The other algorithms. Making functions is most of what a call for one request costs, so these are made when they are met.
local function learn_others()
  -- How many units so much room is for: an estimate, which is off by one at most, put right.
  local function units_in(rule, room, room_part)
    if room < 0 then
      return 0
    end
    local units = floor((room + room_part / rule.b) / (rule.window + rule.a / rule.b))
    local whole, fraction = time_of(rule, units)
    if whole > room or whole == room and fraction > room_part then
      return units - 1
    end
    whole, fraction = time_of(rule, units + 1)
    if whole < room or whole == room and fraction <= room_part then
      return units + 1
    end
    return units
  end

  look[GCRA] = function(part)
    local rule = part.rule
    local whole, fraction = read_bucket(rule, read(part))
    if not whole then
      whole, fraction = now, 0
    end
    part.whole, part.fraction = whole, fraction
    local room, room_part = time_of(rule, rule.limit)
    room, room_part = room + rule.c - (whole - now), room_part - fraction
    if room_part < 0 then
      room, room_part = room - 1, room_part + rule.b
    end
    part.room, part.room_part = room, room_part
    -- Ahead only what fits without the time that a grant may be kept.
    part.ahead = units_in(rule, room - rule.d, room_part)
    return units_in(rule, room, room_part)
  end

  take[GCRA] = function(part, left, taken)
    local rule = part.rule
    if taken > 0 then
      local whole, fraction = time_of(rule, taken)
      part.whole, part.fraction = part.whole + whole, part.fraction + fraction
      part.room, part.room_part = part.room - whole, part.room_part - fraction
      if part.fraction >= rule.b then
        part.whole, part.fraction = part.whole + 1, part.fraction - rule.b
      end
      if part.room_part < 0 then
        part.room, part.room_part = part.room - 1, part.room_part + rule.b
      end
      call('SET', part.key, pack_numbers('<I8I8', part.whole, part.fraction), 'PX', milliseconds(part.whole - now))
      left = left - taken
    end
    if rule.algorithm == PACING and taken > 0 then
      local whole, fraction = time_of(rule, rule.limit)
      local delay = part.whole - now - whole
      if part.fraction > fraction then
        delay = delay + 1
      end
      return left, delay
    end
    if left >= part.units and part.whole == now and part.fraction == 0 then
      -- Nothing has been taken, so there will not be more.
      return left, 0
    end
    local wanted = max(part.units, left + 1)
    local whole, fraction = time_of(rule, wanted)
    local full, full_part = time_of(rule, rule.limit)
    if whole > full + rule.c or whole == full + rule.c and fraction > full_part then
      -- So many never fit; if that is one more than do, there is more to be had until all is.
      return left, left < part.units and -1 or part.whole - now + min(part.fraction, 1)
    end
    whole = whole - part.room
    if fraction > part.room_part then
      whole = whole + 1
    end
    return left, whole
  end

  look[PACING], take[PACING] = look[GCRA], take[GCRA]

  -- How long until so many units are left of a sliding counter, in this window or the next.
  local function wait_of_pair(part, wanted)
    local rule, current, previous = part.rule, part.current, part.previous
    local step, steps, window, elapsed = rule.a, rule.b, rule.window, part.elapsed
    if current + wanted <= rule.limit then
      if previous == 0 then
        return 0
      end
      local weight = floor((rule.limit - current - wanted) * steps / previous)
      return max(min((steps - weight) * step, window) - elapsed, 0)
    end
    local weight = current == 0 and steps or floor((rule.limit - wanted) * steps / current)
    return window - elapsed + min(max((steps - weight) * step, 0), window)
  end

  look[SLIDING_COUNTER] = function(part)
    local rule = part.rule
    local index, current, previous = read_pair(rule, part.seed, read(part))
    part.index, part.current, part.previous = index, current, previous
    part.elapsed = max(now - offset_of(part.seed, rule.window) - index * rule.window, 0)
    local weight = rule.b - floor(part.elapsed / rule.a)
    return floor(((rule.limit - current) * rule.b - previous * weight) / rule.b)
  end

  take[SLIDING_COUNTER] = function(part, left, taken)
    local rule = part.rule
    if taken > 0 then
      part.current, left = part.current + taken, left - taken
      call('SET', part.key, pack_numbers('<I8I8I8', part.index, part.current, part.previous), 'PX',
        milliseconds(2 * rule.window - part.elapsed))
    end
    left = max(left, 0)
    if left >= rule.limit then
      return left, 0
    end
    return left, wait_of_pair(part, max(part.units, left + 1))
  end

  look[SLIDING_WINDOW] = function(part)
    local counts = part.counts or {}
    part.counts = counts
    part.index = read_parts(part.rule, part.seed, read(part), counts)
    local used = 0
    for place = 1, 11 do
      used = used + counts[place]
    end
    return part.rule.limit - used
  end

  take[SLIDING_WINDOW] = function(part, left, taken)
    local rule, counts = part.rule, part.counts
    if taken > 0 then
      counts[11], left = counts[11] + taken, left - taken
      write_parts(part.key, rule, part.seed, part.index, counts)
    end
    left = max(left, 0)
    if left >= rule.limit then
      return left, 0
    end
    -- The parts leave one after another, the oldest first.
    local missing, place = max(part.units, left + 1) - left, 0
    repeat
      place = place + 1
      missing = missing - counts[place]
    until missing <= 0 or place == 11
    return left, (part.index + place) * rule.a + offset_of(part.seed, rule.window) - now
  end

  look[SLIDING_LOG] = function(part)
    local rule, key = part.rule, part.key
    part.at = now
    local newest = try('LINDEX', key, -1)
    if not is_usable(part, newest) then
      return 0
    end
    newest = type(newest) == 'string' and number(newest)
    if newest and newest > now then
      if newest > now + rule.window then
        call('DEL', key)
      else
        -- A clock that stepped back a little stays where it was.
        part.at = newest
      end
    end
    local oldest = newest and number(call('LINDEX', key, 0) or nil)
    while oldest and oldest <= part.at - rule.window do
      call('LPOP', key)
      oldest = number(call('LINDEX', key, 0) or nil)
    end
    return rule.limit - call('LLEN', key)
  end

  take[SLIDING_LOG] = function(part, left, taken)
    local rule, key = part.rule, part.key
    if taken > 0 then
      local times = {}
      for place = 1, taken do
        times[place] = part.at
      end
      call('RPUSH', key, unpack(times))
      call('PEXPIRE', key, milliseconds(part.at - now + rule.window))
      left = left - taken
    end
    left = max(left, 0)
    local leaves = call('LINDEX', key, max(part.units, left + 1) - left - 1)
    return left, leaves and number(leaves) + rule.window - now or 0
  end

  look[CONCURRENCY] = function(part)
    if not is_usable(part, try('ZREMRANGEBYSCORE', part.key, '-inf', now)) then
      return 0
    end
    return part.rule.limit - call('ZCARD', part.key)
  end

  take[CONCURRENCY] = function(part, left, taken)
    local expiry = now + part.rule.window
    for first = 0, taken - 1, 1000 do
      local members = {}
      for unit = first, min(first + 999, taken - 1) do
        members[#members + 1] = expiry
        members[#members + 1] = ARGV[3] .. pack_numbers('<I8', part.sequence + unit)
      end
      call('ZADD', part.key, unpack(members))
    end
    if taken > 0 then
      call('PEXPIRE', part.key, milliseconds(part.rule.window))
    end
    left = max(left - taken, 0)
    -- Nobody knows when others are done.
    return left, left < part.units and 1000000 or 0
  end
end

local groups = ARGV[2]
local spread, at = unpack_numbers('<I4', groups)
local reply, length, first = { now }, 1, 0

-- The short way for most requests, which are under fixed windows only and pass. Otherwise nothing has happened.
local counted = {}
local function pass(waiting, cost, policies, index, seed)
  local start, place = at, length + 1
  for i = 1, policies do
    if i > 1 then
      index, seed, at = unpack_numbers('<I2I4', groups, at)
    end
    local rule, key = rule_of(index), KEYS[first + i]
    local units, left, ends = waiting * rule.cost * cost, nil, nil
    if rule.algorithm == FIXED_WINDOW and rule.shadow == 0 then
      left, ends = count_in_window(rule, seed, key, units)
    end
    if not left or left < units then
      if left then
        call('DECRBY', key, units)
      end
      for before = 1, i - 1 do
        call('DECRBY', KEYS[first + before], counted[before])
      end
      at = start
      return false
    end
    counted[i] = units
    reply[place + 2 * i - 1], reply[place + 2 * i] = left - units, ends
  end
  reply[place] = waiting
  length = place + 2 * policies
  return true
end

-- Decides about a group under all its policies together.
local function decide(waiting, wanted, cost, policies, index, seed)
  -- The most that all policies allow, and that they allow ahead.
  local fit, ahead = math.huge, math.huge

  for i = 1, policies do
    local part = parts[i]
    if not part then
      part = {}
      parts[i] = part
    end
    if i > 1 then
      index, seed, at = unpack_numbers('<I2I4', groups, at)
    end
    local rule = rule_of(index)
    if not look[rule.algorithm] then
      learn_others()
    end
    if rule.algorithm == CONCURRENCY then
      part.sequence, at = unpack_numbers('<I8', groups, at)
    end
    part.rule, part.seed, part.key, part.units = rule, seed, KEYS[first + i], rule.cost * cost
    part.blocked, part.ahead = nil, nil
    part.left = look[rule.algorithm](part, waiting + wanted)
    if part.blocked then
      part.left = 0
    end
    part.fit = max(floor(part.left / part.units), 0)
    if rule.shadow == 0 then
      fit = min(fit, part.fit)
      ahead = min(ahead, part.ahead and floor(part.ahead / part.units) or part.fit)
    end
  end

  local total = min(waiting, fit)
  if wanted > 0 and ahead > waiting then
    total = total + min(wanted, floor((fit - waiting) / spread), ahead - waiting)
  end
  length = length + 1
  reply[length] = total

  for i = 1, policies do
    local part = parts[i]
    local requests = total
    if part.rule.shadow == 1 and part.fit < total then
      requests = part.fit
    end
    local left, wait = 0, part.blocked
    if not wait then
      left, wait = take[part.rule.algorithm](part, part.left, requests * part.units)
      if left < part.units and part.units > part.rule.limit and part.rule.algorithm ~= PACING then
        wait = -1
      end
    end
    if requests < total then
      left = requests - total
    end
    reply[length + 1], reply[length + 2] = left, wait
    length = length + 2
  end
end

while at <= #groups do
  local waiting, wanted, cost, policies, index, seed
  -- With the first policy, because most have no other.
  waiting, wanted, cost, policies, index, seed, at = unpack_numbers('<I4I4I4I1I2I4', groups, at)
  if wanted > 0 or waiting == 0 or not pass(waiting, cost, policies, index, seed) then
    decide(waiting, wanted, cost, policies, index, seed)
  end
  first = first + policies
end
-- One string instead of many numbers: both sides read it faster.
return pack_numbers('<' .. string.rep('i8', length), unpack(reply))

-- Changes what has been counted: gives back what need not have been, or counts more.
--
-- KEYS     counters, in the order of ARGV[2].
-- ARGV[1]  the rules; see rule_of.
-- ARGV[2]  for each key: the rule's number (16 bits), the seed of the identity's windows (32 bits), when it was counted (64
--          bits), and the units, negative ones to be given back (64 bits, signed).
-- Reply    how many counters were changed.
--
-- What is given back goes to the window that it was counted in, if that is still there; no counter falls below nothing, none is
-- made for it, and who is blocked stays so. More is counted now, also beyond the limit.

local settle = {}

settle[FIXED_WINDOW] = function(key, rule, seed, counted, units)
  local value = try('GET', key)
  value = type(value) == 'string' and number(value)
  local window, offset = rule.window, offset_of(seed, rule.window)
  local index = floor((now - offset) / window)
  local stored = value and floor(value / USED) - 1
  if stored == 8190 then
    return 0
  end
  if units < 0 then
    local counted_in = floor((counted - offset) / window)
    if not stored or stored ~= counted_in % INDEXES then
      return 0
    end
    if stored ~= index % INDEXES and stored ~= (index + 1) % INDEXES then
      return 0
    end
    local back = min(value % USED, -units)
    if back == 0 then
      return 0
    end
    call('DECRBY', key, back)
    return 1
  end
  if stored and (stored == index % INDEXES or stored == (index + 1) % INDEXES) then
    call('INCRBY', key, min(units, USED - 1 - value % USED))
    return 1
  end
  local lifetime = milliseconds((index + 1) * window + offset - now)
  call('SET', key, (1 + index % INDEXES) * USED + min(units, USED - 1), 'PX', lifetime)
  return 1
end

settle[GCRA] = function(key, rule, seed, counted, units)
  local text = try('GET', key)
  if text == BLOCKED_TEXT then
    return 0
  end
  local whole, part = read_bucket(rule, type(text) == 'string' and text)
  if units < 0 then
    if not whole or whole == now and part == 0 then
      return 0
    end
    local back, back_part = time_of(rule, min(-units, rule.limit + ceil(rule.c / max(rule.window, 1))))
    whole, part = whole - back, part - back_part
    if part < 0 then
      whole, part = whole - 1, part + rule.b
    end
    if whole < now or whole == now and part == 0 then
      call('DEL', key)
      return 1
    end
  else
    if not whole then
      whole, part = now, 0
    end
    -- No more than a bucket holds.
    local more, more_part = time_of(rule, min(units, rule.limit + ceil(rule.c / max(rule.window, 1))))
    whole, part = whole + more, part + more_part
    if part >= rule.b then
      whole, part = whole + 1, part - rule.b
    end
    local full, full_part = time_of(rule, rule.limit)
    full = now + full + rule.c
    if whole > full or whole == full and part > full_part then
      whole, part = full, full_part
    end
  end
  call('SET', key, pack_numbers('<I8I8', whole, part), 'PX', milliseconds(whole - now))
  return 1
end

settle[PACING] = settle[GCRA]

settle[SLIDING_COUNTER] = function(key, rule, seed, counted, units)
  local text = try('GET', key)
  if text == BLOCKED_TEXT or units < 0 and type(text) ~= 'string' then
    return 0
  end
  local index, current, previous = read_pair(rule, seed, type(text) == 'string' and text)
  local offset = offset_of(seed, rule.window)
  if units > 0 then
    current = current + units
  else
    local counted_in = floor((counted - offset) / rule.window)
    if counted_in >= index - 1 and counted_in < index and previous > 0 then
      previous = max(previous + units, 0)
    elseif counted_in == index and current > 0 then
      current = max(current + units, 0)
    else
      return 0
    end
  end
  call('SET', key, pack_numbers('<I8I8I8', index, current, previous), 'PX',
    milliseconds((index + 2) * rule.window + offset - now))
  return 1
end

settle[SLIDING_WINDOW] = function(key, rule, seed, counted, units)
  local text = try('GET', key)
  if text == BLOCKED_TEXT or units < 0 and type(text) ~= 'string' then
    return 0
  end
  local counts = {}
  local index = read_parts(rule, seed, type(text) == 'string' and text, counts)
  local place = 11
  if units < 0 then
    place = 11 - (index - floor((counted - offset_of(seed, rule.window)) / rule.a))
    if place < 1 or place > 11 or counts[place] == 0 then
      return 0
    end
  end
  counts[place] = min(max(counts[place] + units, 0), 4294967295)
  write_parts(key, rule, seed, index, counts)
  return 1
end

settle[SLIDING_LOG] = function(key, rule, seed, counted, units)
  local kind = call('TYPE', key).ok
  if units < 0 then
    if kind ~= 'list' then
      return 0
    end
    return min(call('LREM', key, units, string.format('%.0f', counted)), 1)
  end
  if kind ~= 'list' and kind ~= 'none' then
    return 0
  end
  local at = max(now, number(call('LINDEX', key, -1) or nil) or 0)
  -- Beyond the limit there is nothing to be gained.
  for _ = 1, min(units, rule.limit) do
    call('RPUSH', key, string.format('%.0f', at))
  end
  call('PEXPIRE', key, milliseconds(at - now + rule.window))
  return 1
end

settle[CONCURRENCY] = function()
  return 0
end

local changes, at, changed = ARGV[2], 1, 0
for place = 1, #KEYS do
  local rule, seed, counted, units
  rule, seed, counted, units, at = unpack_numbers('<I2I4I8i8', changes, at)
  rule = rule_of(rule)
  changed = changed + settle[rule.algorithm](KEYS[place], rule, seed, counted, units)
end
return changed

-- Tells for how long identities stay blocked.
--
-- KEYS   counters of some identities.
-- Reply  for each, milliseconds; 0 for whoever is not blocked.

-- See common.lua: the place of a counter that no counter can have.
local BLOCKED_TEXT = '9006099743113216'

local left = {}
for number, key in ipairs(KEYS) do
  local is_blocked = redis.pcall('GET', key) == BLOCKED_TEXT
  left[number] = is_blocked and math.max(redis.call('PTTL', key), 0) or 0
end
return left

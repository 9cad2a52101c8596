-- Changes counters by hand, and tells everybody who may remember them.
--
-- KEYS     counters of some identities.
-- ARGV[1]  reset, block or unblock.   ARGV[2]  how long to block, in milliseconds.
-- ARGV[3]  the channel.               ARGV[4]  what is told: the identities.
-- Reply    how many counters were changed.

-- See common.lua: the place of a counter that no counter can have.
local BLOCKED_TEXT = '9006099743113216'

local changed = 0
for _, key in ipairs(KEYS) do
  if ARGV[1] == 'block' then
    redis.call('SET', key, BLOCKED_TEXT, 'PX', ARGV[2])
    changed = changed + 1
  elseif ARGV[1] == 'reset' or redis.pcall('GET', key) == BLOCKED_TEXT then
    changed = changed + redis.call('DEL', key)
  end
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
return changed

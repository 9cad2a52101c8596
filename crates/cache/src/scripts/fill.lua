-- Stores a loaded value, unless the key was invalidated or the lease lost since the load began.
-- KEYS: entry, guard, meta
-- ARGV: token, epoch, entry, ttl in ms, channel, message for waiters
-- Returns 1 when stored, 0 when refused. A guard that is missing for whatever reason refuses: that is the safe side.
local guard = redis.call('HMGET', KEYS[2], 'token', 'failed', 'waiters')
if guard[1] ~= ARGV[1] or guard[2] or redis.call('HGET', KEYS[3], 'epoch') ~= ARGV[2] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
redis.call('DEL', KEYS[2])
-- Only those who wait are told: a fill invalidates nothing.
if guard[3] then
  redis.call('PUBLISH', ARGV[5], ARGV[6])
end
return 1

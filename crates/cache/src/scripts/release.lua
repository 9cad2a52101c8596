-- Gives a lease back without a value.
-- KEYS: guard
-- ARGV: token, ms for which the failure answers for other workers (0: it was no failure), channel, message for waiters
local guard = redis.call('HMGET', KEYS[1], 'token', 'waiters')
if guard[1] ~= ARGV[1] then
  return 0
end
if tonumber(ARGV[2]) > 0 then
  redis.call('HSET', KEYS[1], 'failed', 1)
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  redis.call('DEL', KEYS[1])
end
if guard[2] then
  redis.call('PUBLISH', ARGV[3], ARGV[4])
end
return 1

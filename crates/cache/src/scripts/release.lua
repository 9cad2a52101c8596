-- Gives a lease back without a value.
-- KEYS: guard
-- ARGV: token, ms for which the failure answers for other workers (0: it was no failure), and for those who have something old,
--       channel, message for waiters
local guard = redis.call('HMGET', KEYS[1], 'token', 'waiters')
if guard[1] ~= ARGV[1] then
  return 0
end
local throttle = tonumber(ARGV[3])
if throttle > 0 then
  local clock = redis.call('TIME')
  local until_ms = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[2]
  redis.call('HSET', KEYS[1], 'failed', string.format('%.0f', until_ms))
  redis.call('PEXPIRE', KEYS[1], throttle)
else
  redis.call('DEL', KEYS[1])
end
if guard[2] then
  redis.call('PUBLISH', ARGV[4], ARGV[5])
end
return 1

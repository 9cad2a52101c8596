-- Says that a worker is there, and answers who is.
--
-- KEYS[1]  all workers, by when they are to be forgotten, in milliseconds of Redis's clock.
-- ARGV[1]  this worker.   ARGV[2]  how long it is remembered, in milliseconds.

local time = redis.call('TIME')
local now, lifetime = time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[2])

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
-- Remembered longer than anybody may be: the clock was set back since.
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now + lifetime), '+inf')
redis.call('ZADD', KEYS[1], string.format('%.0f', now + lifetime), ARGV[1])
redis.call('PEXPIRE', KEYS[1], 2 * lifetime)
return redis.call('ZRANGE', KEYS[1], 0, -1)

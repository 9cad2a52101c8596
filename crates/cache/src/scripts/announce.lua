-- Notes a change that is about to be made.
-- KEYS: changes announced
-- ARGV: the change, ms after which somebody else makes its invalidation, ms for which the list is kept
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZADD', KEYS[1], now_ms + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1

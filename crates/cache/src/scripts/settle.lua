-- Strikes out a change: its invalidation is made, or there is none to make.
-- KEYS: changes announced
-- ARGV: the change
return redis.call('ZREM', KEYS[1], ARGV[1])

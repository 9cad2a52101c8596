-- Begins a new epoch of a lane: all its entries, everywhere, become misses.
-- KEYS: meta
-- ARGV: new epoch, meta ttl in ms, channel, message that carries the new epoch
local clock = redis.call('TIME')
local start = string.format('%.0f', clock[1] * 1000000 + clock[2])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'sequence', start, 'published', start)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1

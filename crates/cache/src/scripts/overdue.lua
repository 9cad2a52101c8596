-- Takes over changes whose writers have not said in time that they are done. Until whoever took them says so, or for a while,
-- nobody else does.
-- KEYS: changes announced
-- ARGV: ms for which nobody else takes them, most of them
-- Returns the changes
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local changes = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, ARGV[2])
for _, change in ipairs(changes) do
  redis.call('ZADD', KEYS[1], now_ms + ARGV[1], change)
end
return changes

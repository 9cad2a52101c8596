-- Gives the entry, or the right to load it, or says who is loading.
-- KEYS: entry, guard, meta
-- ARGV: signature of readable entries, version of an entry that is not wanted, holder, lease in ms, epoch to start with, meta ttl in ms,
--       a holder that has died, whether there is something old to make do with (1 or 0)
-- Returns {0, time, epoch, entry} | {1, time, epoch, ms left of another's lease, its holder} | {2, time, epoch, ms a failure is held} | {3, time, epoch, token}
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local epoch = tonumber(redis.call('HGET', KEYS[3], 'epoch'))
if not epoch then
  -- Starting at the clock makes numbers go forward even after Redis has forgotten everything.
  local start = string.format('%.0f', now)
  redis.call('HSET', KEYS[3], 'epoch', ARGV[5], 'sequence', start, 'published', start)
  redis.call('PEXPIRE', KEYS[3], ARGV[6])
  epoch = tonumber(ARGV[5])
end

local entry = redis.call('GET', KEYS[1])
if entry and #entry >= 60 and string.sub(entry, 1, 8) == ARGV[1] then
  local entry_epoch, version = struct.unpack('<I8I8', entry, 13)
  if entry_epoch == epoch and version ~= tonumber(ARGV[2]) then
    return {0, now, epoch, entry}
  end
end

local guard = redis.call('HMGET', KEYS[2], 'token', 'holder', 'failed')
if guard[3] then
  -- Whoever has something old does not try again as long as the guard lives; others, soon.
  local left = redis.call('PTTL', KEYS[2])
  if ARGV[8] == '0' then
    left = math.min(left, tonumber(guard[3]) - math.floor(now / 1000))
  end
  if left > 0 then
    return {2, now, epoch, left}
  end
  redis.call('HDEL', KEYS[2], 'failed', 'waiters')
  guard[1] = false
end
-- A holder that asks again has lost the answer to its first question, and has only one load per key.
if guard[1] and guard[2] ~= ARGV[3] and guard[2] ~= ARGV[7] then
  redis.call('HINCRBY', KEYS[2], 'waiters', 1)
  return {1, now, epoch, redis.call('PTTL', KEYS[2]), guard[2]}
end

local token = redis.call('HINCRBY', KEYS[3], 'sequence', 1)
redis.call('PEXPIRE', KEYS[3], ARGV[6])
redis.call('HSET', KEYS[2], 'token', string.format('%.0f', token), 'holder', ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return {3, now, epoch, token}

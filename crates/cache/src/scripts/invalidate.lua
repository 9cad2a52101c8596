-- Removes entries, voids their leases, numbers, logs and publishes the invalidation, lane by lane.
-- KEYS, per group: meta, log, then entry and guard of each of its keys
-- ARGV: origin, epoch to start with, meta ttl in ms, log ttl in ms, log length, then per group: number of keys, channel, lane, encoded keys
-- Returns {time, then per group: epoch, sequence}
local origin, first_epoch, meta_ttl, log_ttl, log_length = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local answer = {now}
local key, arg = 1, 6
while arg <= #ARGV do
  local count, channel, lane, body = tonumber(ARGV[arg]), ARGV[arg + 1], tonumber(ARGV[arg + 2]), ARGV[arg + 3]
  local meta, log = KEYS[key], KEYS[key + 1]
  arg, key = arg + 4, key + 2

  local state = redis.call('HMGET', meta, 'epoch', 'published')
  local epoch, previous = state[1], state[2]
  if not epoch then
    epoch, previous = first_epoch, string.format('%.0f', now)
    redis.call('HSET', meta, 'epoch', epoch, 'sequence', previous)
  end
  local sequence = redis.call('HINCRBY', meta, 'sequence', 1)
  local written = string.format('%.0f', sequence)
  redis.call('HSET', meta, 'published', written)
  redis.call('PEXPIRE', meta, meta_ttl)

  for _ = 1, count do
    redis.call('UNLINK', KEYS[key], KEYS[key + 1])
    key = key + 2
  end

  -- A log with higher numbers is a former epoch's, from before the server's clock was set back.
  local added = redis.pcall('XADD', log, 'MAXLEN', '~', log_length, written .. '-0', 'p', previous, 'k', body)
  if type(added) == 'table' and added.err then
    redis.call('UNLINK', log)
    redis.call('XADD', log, written .. '-0', 'p', previous, 'k', body)
  end
  redis.call('PEXPIRE', log, log_ttl)
  local head = struct.pack('<BI8I2I8I8I8I8B', 1, tonumber(epoch), lane, tonumber(previous), sequence, tonumber(origin), now, 1)
  redis.call('PUBLISH', channel, head .. body)
  answer[#answer + 1] = tonumber(epoch)
  answer[#answer + 1] = sequence
end
return answer

-- Counts attempts to log in, each as a failure until it is known to be none.
--
-- KEYS     the records of the address, of the account, and of both together.
-- ARGV[1]  begin, withdraw or succeed.
-- ARGV[2]  after how many failures in a row to block.
-- ARGV[3]  how long failures are remembered, in milliseconds.   ARGV[4]  how long a pair stays known.
-- begin:   ARGV[5 ...]  how long to block the first time, the second time and so on, in microseconds.
--          Reply        how long to wait in microseconds, or 0 if admitted; whether the pair is known; the runs of both records.
-- others:  ARGV[5 ... 7]  what begin replied: whether the pair was known, and the runs.
--
-- A record has n, the failures of this run; r, the run's number; u, when its block ends; l, how many blocks there have been.
-- That of a pair has k if it is known: somebody has logged in to this account from this address. Whoever comes from there
-- does not suffer from what strangers do to the account. It also has c and cr: how many failures of the address in run cr
-- were attempts at this account, and become none when one of them succeeds.

local FAILURES, FORGET_MS, KNOWN_MS = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local function read(key)
  local fields = redis.call('HMGET', key, 'n', 'r', 'u', 'l')
  return {
    key = key,
    failures = tonumber(fields[1]) or 0,
    run = tonumber(fields[2]) or 0,
    blocked_until = tonumber(fields[3]) or 0,
    level = tonumber(fields[4]) or 0,
  }
end

local function write(record, lifetime_ms)
  redis.call('HSET', record.key, 'n', record.failures, 'r', record.run,
    'u', string.format('%.0f', record.blocked_until), 'l', record.level)
  redis.call('PEXPIRE', record.key, lifetime_ms)
end

local function add_failure(record, block)
  if record.failures >= FAILURES then
    record.failures, record.run = 0, record.run + 1
  end
  record.failures = record.failures + 1
  if record.failures >= FAILURES then
    record.blocked_until, record.level = now + block, record.level + 1
  end
end

-- What has become none no longer blocks either.
local function take_failures(record, run, failures, lifetime_ms)
  if record.run ~= run or record.failures == 0 then
    return
  end
  if record.failures >= FAILURES then
    record.blocked_until, record.level = 0, record.level - 1
  end
  record.failures = math.max(record.failures - failures, 0)
  write(record, lifetime_ms)
end

local pair_key = KEYS[3]
local pair_lifetime_ms = redis.call('HGET', pair_key, 'k') and KNOWN_MS or FORGET_MS
local address = read(KEYS[1])

local function begin()
  local is_known = pair_lifetime_ms == KNOWN_MS
  local subject = read(is_known and pair_key or KEYS[2])
  local wait = math.max(address.blocked_until, subject.blocked_until) - now
  if wait > 0 then
    -- Longer than the longest block only after the clock was set back.
    return { math.min(wait, tonumber(ARGV[#ARGV])), 0, 0, 0 }
  end
  local blocks = #ARGV - 4
  local function block_at(level)
    return tonumber(ARGV[4 + math.min(level + 1, blocks)])
  end
  -- A stranger blocks an account no longer than himself.
  local block_of_address, block_of_subject = block_at(address.level), block_at(math.min(address.level, subject.level))
  add_failure(address, block_of_address)
  add_failure(subject, block_of_subject)
  write(address, FORGET_MS)
  write(subject, is_known and KNOWN_MS or FORGET_MS)
  if tonumber(redis.call('HGET', pair_key, 'cr')) == address.run then
    redis.call('HINCRBY', pair_key, 'c', 1)
  else
    redis.call('HSET', pair_key, 'c', 1, 'cr', address.run)
  end
  redis.call('PEXPIRE', pair_key, pair_lifetime_ms)
  return { 0, is_known and 1 or 0, address.run, subject.run }
end

local was_known, run_of_address, run_of_subject = ARGV[5] == '1', tonumber(ARGV[6]), tonumber(ARGV[7])

local function withdraw()
  take_failures(address, run_of_address, 1, FORGET_MS)
  if was_known then
    take_failures(read(pair_key), run_of_subject, 1, KNOWN_MS)
  else
    take_failures(read(KEYS[2]), run_of_subject, 1, FORGET_MS)
  end
  local counted = redis.call('HMGET', pair_key, 'c', 'cr')
  if tonumber(counted[2]) == run_of_address and tonumber(counted[1]) > 0 then
    redis.call('HINCRBY', pair_key, 'c', -1)
  end
  return 0
end

local function succeed()
  local counted = redis.call('HMGET', pair_key, 'c', 'cr')
  take_failures(address, tonumber(counted[2]), tonumber(counted[1]), FORGET_MS)
  if not was_known then
    redis.call('DEL', KEYS[2])
  end
  redis.call('DEL', pair_key)
  redis.call('HSET', pair_key, 'k', 1)
  redis.call('PEXPIRE', pair_key, KNOWN_MS)
  return 0
end

if ARGV[1] == 'begin' then
  return begin()
end
return ARGV[1] == 'succeed' and succeed() or withdraw()

-- Where each lane stands. A lane that Redis does not know begins here, so that the first readers agree on its epoch; so does one that
-- another server process wrote: a restart or a failover may have brought back what was invalidated.
-- KEYS: meta of each lane
-- ARGV: epoch to start with, meta ttl in ms
-- Returns {time, then per lane: epoch, last published number}
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
-- Nil without the right to ask; then only what went back is noticed.
local info = redis.pcall('INFO', 'server')
local server = type(info) == 'string' and string.match(info, 'run_id:(%x+)')
local answer = {now}
for _, meta in ipairs(KEYS) do
  local state = redis.call('HMGET', meta, 'epoch', 'published', 'server')
  local noted = state[3]
  if not state[1] or (server and noted and noted ~= server) then
    local start = string.format('%.0f', now)
    redis.call('HSET', meta, 'epoch', ARGV[1], 'sequence', start, 'published', start)
    redis.call('PEXPIRE', meta, ARGV[2])
    state = {ARGV[1], start}
  end
  if server and noted ~= server then
    redis.call('HSET', meta, 'server', server)
  end
  answer[#answer + 1] = tonumber(state[1])
  answer[#answer + 1] = tonumber(state[2])
end
return answer

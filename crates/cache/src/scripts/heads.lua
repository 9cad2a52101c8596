-- Where each lane stands. A lane that Redis does not know begins here, so that the first readers agree on its epoch.
-- KEYS: meta of each lane
-- ARGV: epoch to start with, meta ttl in ms
-- Returns {time, then per lane: epoch, last published number}
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local answer = {now}
for _, meta in ipairs(KEYS) do
  local state = redis.call('HMGET', meta, 'epoch', 'published')
  if not state[1] then
    local start = string.format('%.0f', now)
    redis.call('HSET', meta, 'epoch', ARGV[1], 'sequence', start, 'published', start)
    redis.call('PEXPIRE', meta, ARGV[2])
    state = {ARGV[1], start}
  end
  answer[#answer + 1] = tonumber(state[1])
  answer[#answer + 1] = tonumber(state[2])
end
return answer

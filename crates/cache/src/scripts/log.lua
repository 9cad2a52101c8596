-- What was invalidated in each lane after a number.
-- KEYS: log of each lane
-- ARGV: most entries per lane, then per lane the number
-- Returns per lane a flat list of: previous number, number, encoded keys
local answer = {}
for index, log in ipairs(KEYS) do
  local flat = {}
  for _, entry in ipairs(redis.call('XRANGE', log, '(' .. ARGV[index + 1] .. '-0', '+', 'COUNT', ARGV[1])) do
    local fields = entry[2]
    flat[#flat + 1] = tonumber(fields[2])
    flat[#flat + 1] = tonumber(string.match(entry[1], '^%d+'))
    flat[#flat + 1] = fields[4]
  end
  answer[index] = flat
end
return answer

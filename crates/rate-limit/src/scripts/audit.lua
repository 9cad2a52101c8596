-- Looks for a counter that would live for ever.
--
-- ARGV[1]  where to go on, 0 at first.   ARGV[2]  what names of counters look like.
-- Reply    where to go on, 0 at the end, and the names of those that were found.

local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', 500)
local found = {}
for _, key in ipairs(page[2]) do
  if redis.call('PTTL', key) == -1 then
    found[#found + 1] = key
  end
end
return { page[1], found }

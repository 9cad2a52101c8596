-- What one wrk thread sends, and how its figures reach the orchestrator.
--
-- Arguments after `--`: PATHS (a file, one request target per line) and IDENTITIES (how many client
-- addresses to claim in X-Forwarded-For; 0 = no header). Every request takes a target and an address
-- at random. One target and no identity is left to wrk's own static request.
-- On the way out one line of JSON follows wrk's text; times are in microseconds.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("seed", os.time() * 1000 + threads)
end

local function read_targets(file)
  local targets = {}
  for line in io.lines(file) do
    targets[#targets + 1] = "GET " .. line .. " HTTP/1.1\r\nHost: " .. wrk.host .. "\r\n"
  end
  return targets
end

-- 198.18.0.0/15 is set aside for benchmarks (RFC 2544), so no address is anybody's.
local function forwarded_headers(count)
  local headers = {}
  for n = 0, count - 1 do
    headers[n + 1] = "X-Forwarded-For: 198.18." .. math.floor(n / 250) .. "." .. (n % 250 + 1) .. "\r\n\r\n"
  end
  return headers
end

function init(args)
  math.randomseed(seed)
  local targets = read_targets(args[1])
  local identities = tonumber(args[2])
  if #targets == 1 and identities == 0 then
    wrk.path = targets[1]:match("^GET (%S+)")
    return
  end
  local endings = identities == 0 and { "\r\n" } or forwarded_headers(identities)
  local random, target_count, ending_count = math.random, #targets, #endings
  request = function()
    return targets[random(target_count)] .. endings[random(ending_count)]
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"duration_us":%d,"requests":%d,"status_errors":%d,"socket_errors":%d,"p50_us":%d,"p99_us":%d}\n',
    summary.duration, summary.requests, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end

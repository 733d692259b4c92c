-- latency.lua: round trip through the balancer, by the generator's timestamps, at a ladder of rates. PG_NDR is the
-- no-drop rate in percent of the link (from ndr.lua); rates are 10, 50 and 90 % of it (RFC 8219 §7.2 style loads).
-- Minimum, average and maximum come from the generator's own latency packets; percentiles from its latency sampler,
-- whose samples go to PG_OUT.RATE.samples.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local gen = require("lbgen")

-- The sampler's file: one latency in ns a line after its header. Returns a sorted list in µs.
local function read_samples(path)
  local values = {}
  local file = io.open(path)
  if file == nil then return values end
  for line in file:lines() do
    local ns = tonumber(line:match("(%d+)%s*$"))
    if ns ~= nil then values[#values + 1] = ns / 1000 end
  end
  file:close()
  table.sort(values)
  return values
end

local function percentile(sorted, share)
  if #sorted == 0 then return nil end
  return sorted[math.max(1, math.ceil(share * #sorted))]
end

gen.main(function()
  local ndr = gen.number("PG_NDR", 100)
  local length = gen.number("PG_MS", 3000)
  gen.setup()
  gen.range({ flows = "many" })
  gen.warm_up()
  pktgen.latency(gen.tx, "rate", gen.number("PG_LATENCY_US", 1000))
  pktgen.latency(gen.tx, "entropy", 16)
  pktgen.latency(gen.tx, "on")
  local csv = gen.csv("latency", { "load_pct_of_ndr", "rate_pct", "tx_pps", "loss", "min_us", "avg_us", "max_us", "p50_us", "p99_us",
    "p999_us", "samples" })
  local average, tail = {}, {}
  for _, load in ipairs({ 10, 50, 90 }) do
    local samples = string.format("%s.%d.samples", gen.env("PG_OUT", "latency"), load)
    os.remove(samples)
    pktgen.set(gen.tx, "rate", ndr * load / 100)
    pktgen.latsampler_params(gen.rx, "simple", 100000, 10000, samples)
    pktgen.latsampler(gen.rx, "on")
    local result = gen.trial(length)
    pktgen.latsampler(gen.rx, "off")
    local stats = pktgen.pktStats(gen.rx)[gen.rx_number].latency
    local sorted = read_samples(samples)
    local p99 = percentile(sorted, 0.99)
    csv.row({ load_pct_of_ndr = load, rate_pct = ndr * load / 100, tx_pps = result.tx_pps, loss = result.loss, min_us = stats.min_us,
      avg_us = stats.avg_us, max_us = stats.max_us, p50_us = percentile(sorted, 0.5), p99_us = p99,
      p999_us = percentile(sorted, 0.999), samples = #sorted })
    average[#average + 1] = { load, stats.avg_us }
    if p99 ~= nil then tail[#tail + 1] = { load, p99 } end
  end
  pktgen.latency(gen.tx, "off")
  csv.close()
  gen.svg("latency", "Latency", "load, % of the no-drop rate", "µs", { { name = "average", points = average }, { name = "p99", points = tail } })
end)

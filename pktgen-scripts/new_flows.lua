-- new_flows.lua: how many new flows a second are entered. The pcap (make_pcap.py flows --count N, N larger than the flow
-- table ages out in one pass) is sent once per run, so that each packet is the first of its flow.
--   PG_FLOWS  packets in the pcap (default 1000000)
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local gen = require("lbgen")

gen.main(function()
  local flows = gen.number("PG_FLOWS", 1000000)
  gen.setup()
  gen.pcap()
  pktgen.set(gen.tx, "count", flows)
  local csv = gen.csv("new_flows", { "rate_pct", "run", "tx", "rx", "lost", "new_flows_per_second" })
  local points = {}
  for _, rate in ipairs({ 1, 2, 5, 10, 20, 50, 100 }) do
    pktgen.set(gen.tx, "rate", rate)
    local rates = {}
    for run = 1, gen.number("PG_RUNS", 3) do
      -- The count ends the run; seconds are those until the last packet was sent.
      local seconds = 0
      local result = gen.trial(0, function(elapsed)
        repeat pktgen.delay(10) until pktgen.isSending(gen.tx)[gen.tx_number] == "n" or elapsed() > 120
        seconds = elapsed()
      end)
      rates[run] = result.rx / seconds
      csv.row({ rate_pct = rate, run = run, tx = result.tx, rx = result.rx, lost = result.lost,
        new_flows_per_second = result.rx / seconds })
      pktgen.delay(gen.number("PG_SETTLE_MS", 0)) -- longer than the idle timeout, if entries are to age out between runs
    end
    points[#points + 1] = { rate, gen.median(rates) / 1e6 }
  end
  csv.close()
  gen.svg("new_flows", "New flows a second", "offered, % of link", "M new flows/s forwarded",
    { { name = "median", points = points } })
end)

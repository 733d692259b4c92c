-- flows_pcap.lua: as many flows as the pcap has (1 M and more), PG_RUNS timed runs. Also runs the VIP mix and any other
-- traffic that make_pcap.py writes:
--   make_pcap.py flows --count 1000000 --out flows.pcap
--   pktgen … -- -m 1.0 -s 0:flows.pcap -f flows_pcap.lua
-- The generator holds every packet in memory: about 316 bytes each.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local gen = require("lbgen")

gen.main(function()
  gen.setup()
  gen.pcap()
  gen.timed_runs("flows_pcap", gen.env("PG_TITLE", "Flows from a pcap"))
end)

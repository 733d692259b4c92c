-- syn_flood.lua: SYNs from 24,347 address and port pairs at PG_RATE, beside no other traffic: how fast SYNs are answered
-- for by the flow table's admission. For a flood beside established flows send flows_pcap.lua from a second port.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local gen = require("lbgen")

gen.main(function()
  gen.setup()
  gen.range({ flows = "many", proto = "tcp", syn = true })
  gen.timed_runs("syn_flood", "SYN flood, " .. gen.size .. "-byte frames")
end)

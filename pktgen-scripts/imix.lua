-- imix.lua: simple IMIX (7 × 64, 4 × 570, 1 × 1518 bytes with FCS) as a sequence of 12 packets, PG_RUNS timed runs.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local gen = require("lbgen")

local kSizes = { 64, 570, 64, 64, 570, 64, 64, 570, 64, 1518, 64, 570 } -- spread, so that bursts are alike

gen.main(function()
  gen.setup()
  local proto = gen.env("PG_PROTO", "udp")
  for slot, size in ipairs(kSizes) do
    pktgen.seqTable(slot - 1, gen.tx, {
      eth_dst_addr = gen.env("PG_DMAC", "02:00:00:00:00:02"),
      eth_src_addr = gen.env("PG_SMAC", "02:00:00:00:00:01"),
      ip_dst_addr = gen.env("PG_VIP", "198.18.0.1"),
      ip_src_addr = "10.0.0." .. slot .. "/24",
      sport = 1023 + slot,
      dport = gen.number("PG_DPORT", 80),
      ethType = "ipv4",
      ipProto = proto,
      vlanid = 1,
      pktSize = size,
    })
  end
  local total = 0
  for _, size in ipairs(kSizes) do total = total + size end
  pktgen.set(gen.tx, "size", total // #kSizes) -- pacing goes by the single packet's size: the mean
  pktgen.set(gen.tx, "seq_cnt", #kSizes)
  gen.timed_runs("imix", "IMIX 7:4:1")
end)

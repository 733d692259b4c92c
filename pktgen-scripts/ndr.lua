-- ndr.lua: the highest rate with no loss (NDR) and with little loss (PDR), for each RFC 2544 frame size.
--   PG_MODE     range (default; PG_SIZES apply) or pcap (-s PORT:FILE; the file's own sizes; RFC 4814 random ports and
--               addresses come from make_pcap.py --random)
--   PG_SEARCH   mlr (default; all loss limits in one search) or binary
--   PG_LOSSES   loss limits as fractions (default "0,0.005")
--   PG_SIZES    frame sizes with FCS (default the seven of RFC 2544 §9.1)
--   PG_MAXRATE  percent of the link to start from (default 100); PG_STEP final width in percent (default 0.5)
--   PG_TRIAL_MS length of the final trials (default 2000; RFC 2544 asks for 60000); PG_REPEATS searches a size (default 3)
--   PG_MINTX    share of the asked rate that must have been sent (default 0.97): the generator blocks, it does not drop
-- Every trial goes to PG_OUT.trials.csv, each search's result to PG_OUT.csv, medians to PG_OUT.svg.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local gen = require("lbgen")
local search = require("search")

local function numbers(name, default)
  local list = {}
  for word in gen.env(name, default):gmatch("[^,%s]+") do
    list[#list + 1] = tonumber(word) or error(name .. ": " .. word .. " is not a number", 0)
  end
  return list
end

-- Binds one frame size to trial(rate, ms) for the search, writing each trial down.
local function make_trial(size, log)
  local least = gen.number("PG_MINTX", 0.97)
  return function(rate, ms)
    pktgen.set(gen.tx, "rate", rate)
    pktgen.delay(200)
    local result = gen.trial(ms)
    result.asked_pps = pktgen.portInfo(gen.tx)[gen.tx_number].info.tx_debug.tx_pps
    result.reached = result.tx_pps >= least * result.asked_pps
    result.size, result.rate_pct, result.trial_ms = size, rate, ms
    log.row(result)
    return result
  end
end

gen.main(function()
  local mode, kind = gen.env("PG_MODE", "range"), gen.env("PG_SEARCH", "mlr")
  if mode ~= "range" and mode ~= "pcap" then error("PG_MODE=" .. mode .. ": range or pcap", 0) end
  if kind ~= "mlr" and kind ~= "binary" then error("PG_SEARCH=" .. kind .. ": mlr or binary", 0) end
  local losses = numbers("PG_LOSSES", "0,0.005")
  local sizes = mode == "range" and numbers("PG_SIZES", "64,128,256,512,1024,1280,1518") or { gen.size }
  local max_rate, width, ms = gen.number("PG_MAXRATE", 100), gen.number("PG_STEP", 0.5), gen.number("PG_TRIAL_MS", 2000)
  gen.setup()
  local out = gen.env("PG_OUT", "ndr")
  local csv = gen.csv("ndr", { "size", "loss_limit", "repeat", "rate_pct", "tx_pps", "rx_pps", "loss" })
  local log = gen.csv_at(out .. ".trials.csv", { "size", "rate_pct", "trial_ms", "asked_pps", "tx", "rx", "loss", "reached" })
  local lines = {}
  for i, loss in ipairs(losses) do lines[i] = { name = "loss ≤ " .. loss * 100 .. " %", points = {} } end
  for _, size in ipairs(sizes) do
    pktgen.set(gen.tx, "size", size)
    if mode == "range" then gen.range({ flows = "many", size = size }) else gen.pcap() end
    gen.warm_up()
    local trial = make_trial(size, log)
    local rates = {}
    for i in ipairs(losses) do rates[i] = {} end
    for repetition = 1, gen.number("PG_REPEATS", 3) do
      local found = {}
      if kind == "mlr" then
        found = search.multiple_loss_ratio(trial, max_rate, width, ms, losses)
      else
        for i, loss in ipairs(losses) do
          local rate, result = search.binary(trial, max_rate, width, ms, loss)
          found[i] = { rate = rate, result = result }
        end
      end
      for i, loss in ipairs(losses) do
        local result = found[i].result or { tx_pps = 0, rx_pps = 0 }
        csv.row({ size = size, loss_limit = loss, ["repeat"] = repetition, rate_pct = found[i].rate, tx_pps = result.tx_pps,
          rx_pps = result.rx_pps, loss = result.loss })
        rates[i][repetition] = result.rx_pps
      end
    end
    for i in ipairs(losses) do lines[i].points[#lines[i].points + 1] = { size, gen.median(rates[i]) / 1e6 } end
  end
  csv.close()
  log.close()
  gen.svg("ndr", "Throughput (" .. kind .. " search, median of repeats)", "frame size, bytes with FCS", "Mpps", lines)
end)

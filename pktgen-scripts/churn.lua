-- churn.lua: does a change of targets lose packets or move flows? Sends 24,347 flows for PG_MS and meanwhile drains and
-- undrains PG_TARGET every PG_CHURN_MS by PG_LBCTL, in turns. One CSV row per half: without and with churn.
--   PG_LBCTL   the command (default "lbctl"); PG_TARGET  addr:port (required)
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local gen = require("lbgen")

local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

gen.main(function()
  local target = gen.env("PG_TARGET", nil)
  if target == nil then error("PG_TARGET=addr:port is required: which target to drain and undrain", 0) end
  local lbctl = gen.env("PG_LBCTL", "lbctl")
  local length, period = gen.number("PG_MS", 10000), gen.number("PG_CHURN_MS", 250)
  gen.setup()
  gen.range({ flows = "many" })
  gen.warm_up()
  local csv = gen.csv("churn", { "phase", "changes", "failed_changes", "seconds", "tx", "rx", "lost", "rx_pps" })
  local bars = {}
  for index, phase in ipairs({ "still", "churn" }) do
    local changes, failed = 0, 0
    local result = gen.trial(length, phase == "churn" and function(elapsed)
      while elapsed() * 1000 < length do
        local verb = changes % 2 == 0 and "drain" or "undrain"
        if not os.execute(lbctl .. " " .. verb .. " " .. quoted(target) .. " >/dev/null 2>&1") then failed = failed + 1 end
        changes = changes + 1
        pktgen.delay(period)
      end
    end or nil)
    os.execute(lbctl .. " undrain " .. quoted(target) .. " >/dev/null 2>&1")
    result.phase, result.changes, result.failed_changes = phase, changes, failed
    csv.row(result)
    bars[index] = { index, result.rx_pps / 1e6 }
  end
  csv.close()
  gen.svg("churn", "Target churn while forwarding (1: still, 2: churn)", "phase", "Mpps received", { { name = "received", points = bars } })
end)

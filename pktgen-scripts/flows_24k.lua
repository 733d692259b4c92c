-- flows_24k.lua: 24,347 flows in range mode, PG_RUNS timed runs.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local gen = require("lbgen")

gen.main(function()
  gen.setup()
  gen.range({ flows = "many" })
  gen.timed_runs("flows_24k", "24,347 flows, " .. gen.size .. "-byte frames")
end)

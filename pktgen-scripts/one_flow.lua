-- one_flow.lua: one flow, PG_RUNS timed runs. What a single elephant flow gets through one worker.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local gen = require("lbgen")

gen.main(function()
  gen.setup()
  gen.range({ flows = "one" })
  gen.timed_runs("one_flow", "One flow, " .. gen.size .. "-byte frames")
end)

-- search: throughput at a given loss, by trials. Knows nothing of the generator: a trial is a function
--   trial(rate, ms) → { loss = fraction 0…1, reached = bool, tx_pps = number, rx_pps = number }
-- A generator that blocks instead of dropping does not reach the asked rate when the device is slow, so a trial passes only
-- if its loss is within the limit *and* the asked rate was reached.
local M = {}

local function passes(result, loss_limit) return result.reached and result.loss <= loss_limit end

-- RFC 2544 §26.1 by halving: the highest rate in (0, max] whose trial passes, to within `width`.
-- Returns rate (0: none passed) and that trial's result.
function M.binary(trial, max_rate, width, ms, loss_limit)
  local result = trial(max_rate, ms)
  if passes(result, loss_limit) then return max_rate, result end
  local low, high, best = 0, max_rate, nil
  while high - low > width do
    local middle = (low + high) / 2
    result = trial(middle, ms)
    if passes(result, loss_limit) then
      low, best = middle, result
    else
      high = middle
    end
  end
  return low, best
end

-- In the manner of MLRsearch (draft-ietf-bmwg-mlrsearch): all loss limits in one search. Phases go from short trials and
-- wide intervals to full-length trials and the final width; each phase starts from the bounds of the one before, measures
-- them anew at its own trial length, and walks outwards where they no longer hold. Returns, in the order of loss_limits,
-- { rate, result } with the lower bound found at full length.
function M.multiple_loss_ratio(trial, max_rate, width, full_ms, loss_limits)
  local first = trial(max_rate, math.max(100, full_ms // 10))
  -- What came through at full load is the first guess of all limits.
  local guess = first.tx_pps > 0 and math.min(max_rate, max_rate * first.rx_pps / math.max(first.tx_pps, 1)) or max_rate / 2
  if not first.reached and first.asked_pps then guess = math.min(guess, max_rate * first.rx_pps / first.asked_pps) end
  local bounds = {}
  for i in ipairs(loss_limits) do
    bounds[i] = { low = math.max(0, guess - 4 * width), high = math.min(max_rate, guess + 4 * width) }
  end

  for _, phase in ipairs({ { share = 0.1, widths = 4 }, { share = 0.3, widths = 2 }, { share = 1, widths = 1 } }) do
    local ms = math.max(100, math.floor(full_ms * phase.share))
    local target = width * phase.widths
    local seen = {} -- by rate: one trial serves all limits
    local function at(rate)
      local key = string.format("%.9g", rate)
      if seen[key] == nil then seen[key] = trial(rate, ms) end
      return seen[key]
    end
    for i, limit in ipairs(loss_limits) do
      local low, high = bounds[i].low, bounds[i].high
      local step = target
      while low > 0 and not passes(at(low), limit) do -- the lower bound no longer holds: walk down
        high, low, step = low, math.max(0, low - step), step * 2
      end
      step = target
      while high < max_rate and passes(at(high), limit) do -- the upper bound no longer holds: walk up
        low, high, step = high, math.min(max_rate, high + step), step * 2
      end
      if high >= max_rate and passes(at(max_rate), limit) then low, high = max_rate, max_rate end
      while high - low > target do
        local middle = (low + high) / 2
        if passes(at(middle), limit) then low = middle else high = middle end
      end
      bounds[i] = { low = low, high = high, result = low > 0 and at(low) or nil }
    end
  end
  local found = {}
  for i in ipairs(loss_limits) do found[i] = { rate = bounds[i].low, result = bounds[i].result } end
  return found
end

return M

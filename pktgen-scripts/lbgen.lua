-- lbgen: what every script here shares. Loaded by require() from the script's own folder.
--
-- Pktgen gives a script no arguments, so settings come from the environment:
--   PG_TX, PG_RX       ports to send on and to count answers on, as text (default "0", and PG_TX)
--   PG_DMAC, PG_SMAC   MAC of the balancer's port, and ours
--   PG_VIP, PG_DPORT   where to send to (default 198.18.0.1, 80)
--   PG_PROTO           udp or tcp (default udp)
--   PG_SIZE            frame size with the 4-byte FCS (default 64)
--   PG_RATE            percent of the link's speed (default 100)
--   PG_MS, PG_RUNS     length of one run in ms (default 3000), number of runs (default 5)
--   PG_OUT             result file without its ending: PG_OUT.csv and PG_OUT.svg are written
--
-- Written for Pktgen 23.06.1 (the newest that builds against DPDK 22.11); counters() also reads the form of 26.02.
local M = {}

function M.env(name, default)
  local value = os.getenv(name)
  if value == nil or value == "" then return default end
  return value
end

-- A number from the environment; refuses text that is none, naming the variable.
function M.number(name, default)
  local text = M.env(name, nil)
  if text == nil then return default end
  local value = tonumber(text)
  if value == nil then error(name .. "=" .. text .. " is not a number", 0) end
  return value
end

M.tx = M.env("PG_TX", "0")
M.rx = M.env("PG_RX", M.tx)
M.tx_number = M.number("PG_TX", 0)
M.rx_number = M.number("PG_RX", M.tx_number)
M.size = M.number("PG_SIZE", 64)

-- Seconds since boot: delay() overshoots on a shared CPU, so every rate is divided by this clock.
function M.now()
  local file = assert(io.open("/proc/uptime"))
  local seconds = tonumber(file:read("a"):match("^%S+"))
  file:close()
  return seconds
end

-- Counters of one port since the generator started.
function M.counters(port)
  local ok, stats = pcall(pktgen.portStats, tostring(port), "port")
  if not ok then stats = pktgen.portStats(tostring(port)) end
  stats = stats[port]
  return stats.curr or stats
end

-- Pktgen's statistics thread spins on the CPU whose number is the main lcore's id. If the sending lcore shares that CPU,
-- push the thread to nice 19; it still runs once a second.
local function calm_statistics_thread()
  os.execute([[p=$PPID; for t in /proc/$p/task/*; do n=${t##*/}; ]] ..
    [[if [ "$n" != "$p" ] && [ "$(cat $t/comm)" = "$(cat /proc/$p/comm)" ]; then renice -n 19 -p $n >/dev/null 2>&1; fi; done; true]])
end

-- Common start: quiet screen, sizes, burst, rate; waits until the link is up (memif: until the peer is there).
function M.setup()
  pktgen.screen("off")
  calm_statistics_thread()
  pktgen.set(M.tx, "size", M.size) -- pacing is computed from the single packet's size, in every mode
  pktgen.set(M.tx, "burst", M.number("PG_BURST", 64))
  pktgen.set(M.tx, "rate", M.number("PG_RATE", 100))
  pktgen.set(M.tx, "count", 0)
  for _ = 1, 100 do
    if pktgen.linkState(M.tx)[M.tx_number]:find("UP", 1, true) then return end
    pktgen.delay(100)
  end
  error("port " .. M.tx .. ": link is down after 10 s", 0)
end

local function fixed(set, value, zero)
  for _, field in ipairs({ "start", "min", "max" }) do set(M.tx, field, value) end
  set(M.tx, "inc", zero)
end

local function swept(set, first, last, step)
  set(M.tx, "start", first)
  set(M.tx, "min", first)
  set(M.tx, "max", last)
  set(M.tx, "inc", step)
end

-- Range mode. All swept fields advance together, one step a packet, so the number of flows is the least common multiple
-- of their lengths, at most 24,576 (the generator's packets are built once): 251 addresses × 97 ports = 24,347 flows.
-- options: proto, size, flows = "one" | "many", syn = true (TCP packets are ACKs otherwise).
function M.range(options)
  local proto = options.proto or M.env("PG_PROTO", "udp")
  local size = options.size or M.size
  pktgen.range.set_type(M.tx, "ipv4")
  pktgen.range.ip_proto(M.tx, proto)
  fixed(pktgen.range.dst_mac, M.env("PG_DMAC", "02:00:00:00:00:02"), "00:00:00:00:00:00")
  fixed(pktgen.range.src_mac, M.env("PG_SMAC", "02:00:00:00:00:01"), "00:00:00:00:00:00")
  fixed(pktgen.range.dst_ip, M.env("PG_VIP", "198.18.0.1"), "0.0.0.0")
  fixed(pktgen.range.dst_port, M.number("PG_DPORT", 80), 0)
  fixed(pktgen.range.pkt_size, size, 0)
  if options.flows == "one" then
    fixed(pktgen.range.src_ip, M.env("PG_SIP_MIN", "10.0.0.1"), "0.0.0.0")
    fixed(pktgen.range.src_port, M.number("PG_SPORT_MIN", 1024), 0)
  else
    swept(pktgen.range.src_ip, M.env("PG_SIP_MIN", "10.0.0.1"), M.env("PG_SIP_MAX", "10.0.0.251"), "0.0.0.1")
    swept(pktgen.range.src_port, M.number("PG_SPORT_MIN", 1024), M.number("PG_SPORT_MAX", 1120), 1)
  end
  if options.syn then
    -- There is no Lua call for the TCP flags of a range before 24.10: feed command lines through a file.
    local name = os.tmpname()
    local file = assert(io.open(name, "w"))
    file:write("range ", M.tx, " tcp flag clr ack\nrange ", M.tx, " tcp flag set syn\n")
    file:close()
    pktgen.load(name)
    os.remove(name)
  end
  pktgen.set_range(M.tx, "on")
end

-- Pcap mode: the file was given on the command line (-s PORT:FILE); as many flows as it has.
function M.pcap()
  pktgen.set_range(M.tx, "off")
  pktgen.pcap(M.tx, "on")
end

-- Sends for `ms` and returns what was sent and what came back, by totals over real time.
-- during: called once while sending, with the seconds since start as a function.
function M.trial(ms, during)
  pktgen.delay(2200) -- two statistics ticks: the counters before are final
  local tx0, rx0 = M.counters(M.tx_number).opackets, M.counters(M.rx_number).ipackets
  local start = M.now()
  pktgen.start(M.tx)
  if during then during(function() return M.now() - start end) end
  local rest = ms - (M.now() - start) * 1000
  if rest > 0 then pktgen.delay(math.floor(rest)) end
  pktgen.stop(M.tx)
  local seconds = M.now() - start
  pktgen.delay(2200)
  local tx = M.counters(M.tx_number).opackets - tx0
  local rx = M.counters(M.rx_number).ipackets - rx0
  local loss = tx > 0 and math.max(0, tx - rx) / tx or 1
  return { seconds = seconds, tx = tx, rx = rx, lost = tx - rx, loss = loss, tx_pps = tx / seconds, rx_pps = rx / seconds }
end

-- Builds packets and fills tables before anything is measured.
function M.warm_up()
  pktgen.set(M.tx, "count", 100000)
  pktgen.start(M.tx)
  pktgen.delay(1500)
  pktgen.stop(M.tx)
  pktgen.set(M.tx, "count", 0)
end

function M.median(values)
  local sorted = table.move(values, 1, #values, 1, {})
  table.sort(sorted)
  local middle = #sorted // 2
  if #sorted % 2 == 1 then return sorted[middle + 1] end
  return (sorted[middle] + sorted[middle + 1]) / 2
end

-- Rows to the file at `path`: columns is a list of names, row() takes a table by those names.
function M.csv_at(path, columns)
  local file = assert(io.open(path, "w"))
  file:write(table.concat(columns, ","), "\n")
  return {
    row = function(values)
      local cells = {}
      for i, column in ipairs(columns) do
        local value = values[column]
        if math.type(value) == "float" then value = string.format("%.6g", value) end
        cells[i] = tostring(value == nil and "" or value)
      end
      file:write(table.concat(cells, ","), "\n")
      file:flush()
    end,
    close = function() file:close() end,
  }
end

-- The same to PG_OUT.csv.
function M.csv(default_name, columns) return M.csv_at(M.env("PG_OUT", default_name) .. ".csv", columns) end

local function escape(text)
  return (text:gsub("[&<>]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;" }))
end

-- One chart to PG_OUT.svg. series: list of {name = text, points = list of {x, y}}; drawn as lines with dots.
function M.svg(default_name, title, x_label, y_label, series)
  local width, height, left, bottom, top = 720, 400, 90, 50, 40
  local x_max, y_max = 0, 0
  for _, line in ipairs(series) do
    for _, point in ipairs(line.points) do
      x_max, y_max = math.max(x_max, point[1]), math.max(y_max, point[2])
    end
  end
  if x_max <= 0 then x_max = 1 end
  if y_max <= 0 then y_max = 1 end
  local function x_of(x) return left + x / x_max * (width - left - 30) end
  local function y_of(y) return height - bottom - y / y_max * (height - bottom - top) end
  local out = { string.format('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">',
    width, height) }
  local function add(format, ...) out[#out + 1] = string.format(format, ...) end
  add('<rect width="%d" height="%d" fill="white"/><text x="%d" y="24" font-size="15">%s</text>', width, height, left, escape(title))
  for i = 0, 4 do
    local y = y_of(y_max * i / 4)
    add('<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%.4g</text>', left, y,
      width - 30, y, left - 6, y + 4, y_max * i / 4)
    add('<text x="%.1f" y="%d" text-anchor="middle">%.4g</text>', x_of(x_max * i / 4), height - bottom + 18, x_max * i / 4)
  end
  add('<text x="%d" y="%d" text-anchor="middle">%s</text>', (left + width - 30) // 2, height - 10, escape(x_label))
  add('<text x="16" y="%d" transform="rotate(-90 16 %d)" text-anchor="middle">%s</text>', height // 2, height // 2, escape(y_label))
  local colours = { "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf" }
  for i, line in ipairs(series) do
    local colour = colours[(i - 1) % #colours + 1]
    local path = {}
    for _, point in ipairs(line.points) do
      path[#path + 1] = string.format("%.1f,%.1f", x_of(point[1]), y_of(point[2]))
      add('<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>', x_of(point[1]), y_of(point[2]), colour)
    end
    add('<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>', table.concat(path, " "), colour)
    add('<text x="%d" y="%d" fill="%s" text-anchor="end">%s</text>', width - 34, top + 16 * i, colour, escape(line.name))
  end
  out[#out + 1] = "</svg>"
  local file = assert(io.open(M.env("PG_OUT", default_name) .. ".svg", "w"))
  file:write(table.concat(out, "\n"), "\n")
  file:close()
end

-- PG_RUNS timed runs of what is set up; CSV and SVG of each run, median in the last CSV row.
function M.timed_runs(name, title)
  M.warm_up()
  local csv = M.csv(name, { "run", "seconds", "tx", "rx", "lost", "tx_pps", "rx_pps" })
  local sent, received, tx_rates, rx_rates = {}, {}, {}, {}
  for run = 1, M.number("PG_RUNS", 5) do
    local result = M.trial(M.number("PG_MS", 3000))
    result.run = run
    csv.row(result)
    tx_rates[run], rx_rates[run] = result.tx_pps, result.rx_pps
    sent[run], received[run] = { run, result.tx_pps / 1e6 }, { run, result.rx_pps / 1e6 }
  end
  csv.row({ run = "median", tx_pps = M.median(tx_rates), rx_pps = M.median(rx_rates) })
  csv.close()
  M.svg(name, title, "run", "Mpps", { { name = "sent", points = sent }, { name = "received", points = received } })
end

-- Runs a script's main part; on an error says it, and leaves the generator either way (after -f a prompt would stay).
function M.main(body)
  local ok, message = pcall(body)
  if not ok then io.stderr:write("error: ", tostring(message), "\n") end
  pktgen.quit()
end

return M

-- A recording stand-in for Pktgen-DPDK 23.06.1's Lua API: `lua5.4 standin.lua SCRIPT`. It knows the names, the number and
-- types of arguments and the option words; anything else is an error, as the program's or stricter. Behind it stands a
-- simulated port, link and device under test, in simulated time, so that searches and timed runs have something to find:
--   SIM_LINK_BPS   speed of the link (default 10e9)
--   SIM_DUT_PPS    packets a second the device forwards without loss (default: no limit)
--   SIM_BLOCKS     "1": a slow device holds the generator back (memif, ring) instead of dropping
--   SIM_LINK_DOWN  "1": the link never comes up
--   SIM_CALLS      file to which each call is written, one a line
-- The settings that were sent with stand in the calls file too, as `sent KEY=VALUE …`, one line per start().
local sim = {
  now = 1000.0, link = tonumber(os.getenv("SIM_LINK_BPS") or "10e9"), dut = tonumber(os.getenv("SIM_DUT_PPS") or "inf") or math.huge,
  blocks = os.getenv("SIM_BLOCKS") == "1", down = os.getenv("SIM_LINK_DOWN") == "1", quit = false,
}
local calls = os.getenv("SIM_CALLS") and assert(io.open(os.getenv("SIM_CALLS"), "w"))
local port = { rate = 100, size = 64, count = 0, mode = "single", tx = 0, rx = 0, sending = nil, flags = "ack", range = {} }

local function record(text) if calls then calls:write(text, "\n") calls:flush() end end

-- Argument kinds: each returns true or the reason why not.
local function one_of(...)
  local words = {}
  for _, word in ipairs({ ... }) do words[word] = true end
  return function(v) return type(v) == "string" and words[v] or "one of the known words" end
end
local function integer(low, high)
  return function(v) return math.type(v) == "integer" and v >= low and v <= high or ("an integer " .. low .. "-" .. high) end
end
local function number(v) return type(v) == "number" or "a number" end
local function text(v) return type(v) == "string" or "text" end
local function ports(v) return type(v) == "string" and (v == "all" or v:match("^[%d,%-]+$") ~= nil) or "a port list as text" end
local function mac(v) return type(v) == "string" and v:match("^%x%x:%x%x:%x%x:%x%x:%x%x:%x%x$") ~= nil or "a MAC address" end
local function ip(v) return type(v) == "string" and (v:match("^%d+%.%d+%.%d+%.%d+$") or v:match("^[%x:]+$")) ~= nil or "an address" end
local function on_off(v) return (v == "on" or v == "off") or "on or off" end
local smmi = one_of("start", "min", "max", "inc")
local proto = one_of("udp", "tcp", "icmp")

local function pps() return port.rate / 100 * sim.link / ((port.size + 20) * 8) end -- 20: preamble, gap

-- Lets simulated time pass.
local function advance(seconds)
  sim.now = sim.now + seconds
  local run = port.sending
  if not run then return end
  local sent_pps = sim.blocks and math.min(pps(), sim.dut) or pps()
  local packets = math.floor(sent_pps * seconds)
  if port.count > 0 and run.sent + packets >= port.count then packets = port.count - run.sent port.sending = nil end
  run.sent = run.sent + packets
  port.tx = port.tx + packets
  port.rx = port.rx + math.floor(packets * math.min(1, sim.dut / sent_pps))
end

local function by_port(value) return { [0] = value, n = 1 } end
local function stats() return { ipackets = port.rx, opackets = port.tx, ibytes = 0, obytes = 0, ierrors = 0, oerrors = 0, imissed = 0, rx_nombuf = 0 } end

local settings = {
  count = integer(0, math.maxinteger), size = integer(64, 9600), burst = integer(1, 128), txburst = integer(1, 128),
  rxburst = integer(1, 128), sport = integer(0, 65535), dport = integer(0, 65535), ttl = integer(0, 255), seq_cnt = integer(0, 16),
  prime = integer(0, 4), dump = integer(1, 32), cycles = integer(0, math.maxinteger),
  rate = function(v) return type(v) == "number" and v > 0 and v <= 100 or "a percentage above 0, at most 100" end,
}
local seq_fields = {
  eth_dst_addr = mac, eth_src_addr = mac, ip_dst_addr = ip, sport = integer(0, 65535), dport = integer(0, 65535),
  ip_src_addr = function(v) return type(v) == "string" and v:match("^[%x%.:]+/%d+$") ~= nil or "an address with a mask" end,
  ethType = one_of("ipv4", "ipv6"), ipProto = proto, vlanid = integer(1, 4095), pktSize = integer(64, 9600), cos = integer(0, 7),
  tos = integer(0, 255), gtpu_teid = integer(0, 0xffffffff),
}

-- name = { argument kinds…, run = what it does }
local api = {
  quit = { run = function() sim.quit = true end },
  screen = { on_off }, reset = { ports }, clear = { ports }, clr = {}, cls = {}, update = {}, page = { text },
  start = { ports, run = function()
    local fields = {}
    for name, f in pairs(port.range) do
      fields[#fields + 1] = name .. "=" .. tostring(f.start) .. "," .. tostring(f.min) .. "," .. tostring(f.max) .. "," .. tostring(f.inc)
    end
    table.sort(fields)
    record(("sent mode=%s rate=%g size=%d count=%d flags=%s %s"):format(port.mode, port.rate, port.size, port.count, port.flags,
      port.mode == "range" and table.concat(fields, " ") or ""))
    port.sending = { sent = 0 }
  end },
  stop = { ports, run = function() port.sending = nil end },
  delay = { integer(0, 3600000), run = function(ms) advance(ms / 1000) end },
  sleep = { integer(0, 3600), run = advance },
  load = { text, run = function(name)
    for line in io.lines(name) do
      local action, flag = line:match("^range %d+ tcp flag (%a+) (%a+)$")
      if not action then error("load: unknown command line: " .. line, 3) end
      port.flags = action == "set" and flag or port.flags
    end
  end },
  set = { ports, one_of("count", "size", "rate", "burst", "txburst", "rxburst", "cycles", "sport", "dport", "ttl", "seq_cnt", "prime", "dump"),
    number, run = function(_, what, value)
      local ok = settings[what](value)
      if ok ~= true then error("set " .. what .. ": wanted " .. ok .. ", got " .. tostring(value), 3) end
      if what == "seq_cnt" then port.mode = value > 0 and "seq" or "single" else port[what] = value end
    end },
  set_range = { ports, on_off, run = function(_, on)
    if port.sending then error("set_range: refused while sending", 3) end
    port.mode = on == "on" and "range" or "single"
  end },
  pcap = { ports, on_off, run = function(_, on) port.mode = on == "on" and "pcap" or "single" end },
  seqTable = { integer(0, 15), ports, function(v) return type(v) == "table" or "a table" end, run = function(_, _, fields)
    for name, value in pairs(fields) do
      if not seq_fields[name] then error("seqTable: unknown field " .. name, 3) end
      local ok = seq_fields[name](value)
      if ok ~= true then error("seqTable " .. name .. ": wanted " .. ok .. ", got " .. tostring(value), 3) end
    end
    for name in pairs(seq_fields) do
      if fields[name] == nil and name ~= "cos" and name ~= "tos" and name ~= "gtpu_teid" then error("seqTable: " .. name .. " is missing", 3) end
    end
  end },
  latency = { ports, text, optional = number, run = function(_, what, value)
    if (what == "rate" or what == "entropy") ~= (value ~= nil) then error("latency " .. what .. ": wrong number of arguments", 3) end
    if value == nil and what ~= "on" and what ~= "off" then error("latency: unknown word " .. what, 3) end
  end },
  latsampler_params = { ports, one_of("simple", "poisson"), integer(1, 10000000), integer(1, 10000000), text,
    run = function(_, _, _, _, path) sim.samples = path end },
  latsampler = { ports, on_off, run = function(_, on)
    if on == "off" and sim.samples then
      local file = assert(io.open(sim.samples, "w"))
      file:write("Latency\n")
      for i = 1, 1000 do file:write(i * 100, "\n") end
      file:close()
    end
  end },
  linkState = { ports, run = function() return by_port(sim.down and "<--Down-->" or "<UP-10000-FD>") end },
  isSending = { ports, run = function() return by_port(port.sending and "y" or "n") end },
  portCount = { run = function() return 1 end },
  portStats = { ports, one_of("port", "rate"), run = function() return by_port(stats()) end },
  pktStats = { ports, run = function() return by_port({ latency = { min_us = 2, avg_us = 5, max_us = 90, num_pkts = 10 } }) end },
  portInfo = { ports, run = function() return by_port({ info = { tx_debug = { tx_pps = math.floor(pps()) } } }) end },
}
local range_fields = { dst_mac = mac, src_mac = mac, src_ip = ip, dst_ip = ip, src_port = integer(0, 65535), dst_port = integer(0, 65535),
  pkt_size = integer(0, 9600), ttl = integer(0, 255), vlan_id = integer(0, 4095), tos = integer(0, 255), cos = integer(0, 7) }

local function check(name, kinds, arguments)
  local least, most = #kinds, #kinds + (kinds.optional and 1 or 0)
  if arguments.n < least or arguments.n > most then error(("pktgen.%s: %d arguments, wants %d"):format(name, arguments.n, least), 3) end
  local words = {}
  for i = 1, arguments.n do
    local ok = (kinds[i] or kinds.optional)(arguments[i])
    if ok ~= true then error(("pktgen.%s: argument %d: wanted %s, got %s"):format(name, i, ok, tostring(arguments[i])), 3) end
    words[i] = tostring(arguments[i])
  end
  record(name .. "(" .. table.concat(words, ", ") .. ")")
end

local function bind(name, kinds)
  return function(...)
    local arguments = table.pack(...)
    check(name, kinds, arguments)
    if kinds.run then return kinds.run(table.unpack(arguments, 1, arguments.n)) end
  end
end

local function strict(name, functions)
  return setmetatable({}, { __index = function(_, key)
    return functions[key] or error(name .. "." .. tostring(key) .. " does not exist", 2)
  end, __newindex = function(_, key) error(name .. "." .. tostring(key) .. " cannot be set", 2) end })
end

local functions, ranges = {}, {}
for name, kinds in pairs(api) do functions[name] = bind(name, kinds) end
for name, kind in pairs(range_fields) do
  ranges[name] = bind("range." .. name, { ports, smmi, kind, run = function(_, field, value)
    if (name == "src_port" or name == "dst_port") and field == "inc" and value > 64 then error("range: port inc is capped at 64", 3) end
    port.range[name] = port.range[name] or {}
    port.range[name][field] = value
  end })
end
ranges.set_type = bind("range.set_type", { ports, one_of("ipv4", "ipv6") })
ranges.ip_proto = bind("range.ip_proto", { ports, proto, run = function(_, word) port.range.ip_proto = { start = word } end })
functions.range = strict("pktgen.range", ranges)
functions.info = { maxMbufsPerPort = 24576, Pktgen_Version = "Pktgen 23.06.1" }
pktgen = strict("pktgen", functions)

-- The clock of scripts is /proc/uptime: give them the simulated one. A command they run takes 1 ms of it.
local open = io.open
io.open = function(path, mode) -- luacheck: ignore
  if path ~= "/proc/uptime" then return open(path, mode) end
  return { read = function() return string.format("%.3f 0.00\n", sim.now) end, close = function() end }
end
local execute = os.execute
os.execute = function(command) -- luacheck: ignore
  advance(0.001)
  if command and command:find("/proc/$p/task", 1, true) then return true end -- the statistics thread is not there
  record("execute(" .. tostring(command) .. ")")
  return execute(command)
end

dofile(assert(arg[1], "usage: standin.lua SCRIPT"))
if not sim.quit then
  io.stderr:write("the script ended without pktgen.quit(): the generator would stay at its prompt\n")
  os.exit(1)
end

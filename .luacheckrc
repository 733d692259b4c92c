std = "lua54"
max_line_length = 155
files["pktgen-scripts"] = { read_globals = { "pktgen" }, max_line_length = 145 }
files["tests/pktgen"] = { globals = { "pktgen" }, allow_defined_top = true }

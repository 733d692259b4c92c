"""Which folder may include what. The table is the architecture: docs/architecture.md says why."""

import re

import tree

STD = "std"
DP_PURE = ["dp/abi", "dp/base"]
# folder → prefixes of project headers and of third-party headers it may include; its own folder is always allowed.
ALLOWED = {
    "dp/abi": [],
    "dp/base": ["dp/abi"],
    "dp/net": DP_PURE,
    "dp/lb": [*DP_PURE, "dp/net", "tl/expected.hpp"],
    "dp/io": ["dp/", "bpf/", "rte_", "bpf/libbpf.h", "xdp/", "yaml-cpp/", "tl/expected.hpp", "spdlog/", "fmt/"],
    "dp/worker": ["dp/", "rte_", "tl/expected.hpp", "spdlog/", "fmt/", "CLI/"],
    "cp/model": ["dp/abi/types.h", "tl/expected.hpp"],
    "cp/config": ["cp/model", "dp/abi/types.h", "proto/", "google/protobuf/", "yaml.h", "tl/expected.hpp"],
    "cp/health": ["cp/model", "dp/abi/types.h", "dp/net", "curl/", "tl/expected.hpp"],
    "cp/net": ["cp/model", "dp/abi/types.h", "bpf/", "libmnl/", "tl/expected.hpp"],
    "cp/snapshot": ["cp/model", "dp/abi", "dp/base", "tl/expected.hpp", "asio/"],
    "cp/stats": ["cp/model", "dp/abi", "dp/base", "prometheus/", "tl/expected.hpp"],
    "cp/explain": ["cp/model", "cp/config", "cp/snapshot", "dp/abi", "dp/base", "dp/net", "dp/lb", "tl/expected.hpp"],
    "cp/api": ["cp/model", "cp/explain", "dp/abi", "dp/lb/flow_census.h", "proto/", "grpcpp/", "google/protobuf/", "tl/expected.hpp"],
    "cp/control": ["cp/", "dp/abi", "dp/base", "dp/lb", "CLI/", "asio/", "nlohmann/", "spdlog/", "fmt/", "tl/expected.hpp"],
    "cli": ["proto/", "pcap", "grpcpp/", "google/protobuf/", "CLI/", "nlohmann/", "tl/expected.hpp"],
    "replay": ["cp/model", "cp/config", "cp/snapshot", "cp/explain", "dp/abi", "dp/base", "dp/net", "dp/lb", "pcap", "CLI/", "yaml-cpp/",
               "nlohmann/", "tl/expected.hpp"],
    "bpf": ["dp/abi", "bpf/"],
    "target": ["dp/abi", "bpf/", "CLI/", "nlohmann/", "tl/expected.hpp"],
}
# Third-party headers that weigh seconds stay in .cc files.
ONLY_IN_SOURCES = ("grpcpp/", "google/protobuf/", "proto/", "spdlog/", "CLI/", "yaml-cpp/", "prometheus/")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
# Headers of the C and C++ libraries and of the kernel's user interface.
SYSTEM = re.compile(r"^([a-z0-9_]+|[a-z0-9_]+\.h|(sys|net|netinet|arpa|linux|asm|bits)/.*\.h|immintrin\.h)$")


def folder_of(name):
    return max((f for f in ALLOWED if name.startswith(f + "/")), key=len, default=None)


def refusals(name, source):
    folder = folder_of(name)
    if folder is None:
        return
    for kind, header in INCLUDE.findall(source):
        if header.startswith("tests/"):
            yield f"{name}: includes {header}: nothing includes tests"
        elif name.endswith(".h") and header.startswith(ONLY_IN_SOURCES):
            yield f"{name}: includes {header}, which belongs into a .cc file"
        elif header.startswith(folder + "/") or any(header.startswith(prefix) for prefix in ALLOWED[folder]):
            continue
        elif kind == "<" and SYSTEM.match(header) and not header.startswith(("rte_", "pcap")):
            continue
        else:
            yield f"{name}: {folder} may not include {header}"


def test_includes_follow_the_table():
    found = [line for name in tree.code() for line in refusals(name, tree.text(name))]
    assert not found, "\n".join(found)


def test_every_source_folder_stands_in_the_table():
    missing = {n for n in tree.code() if n.split("/")[0] in ("dp", "cp", "cli", "replay", "bpf", "target") and folder_of(n) is None}
    assert not missing


def test_the_rule_refuses_what_it_should():
    assert list(refusals("dp/net/x.cc", "#include <rte_mbuf.h>\n"))
    assert list(refusals("dp/lb/x.cc", '#include "cp/model/model.h"\n'))
    assert list(refusals("cp/model/x.h", "#include <yaml-cpp/yaml.h>\n"))
    assert list(refusals("cp/health/x.cc", '#include "dp/lb/snapshot.h"\n'))
    assert not list(refusals("dp/net/x.cc", '#include "dp/abi/types.h"\n#include <array>\n#include <linux/if_ether.h>\n'))


def test_dp_net_and_dp_lb_know_no_dpdk():
    users = [n for n in tree.code() if n.startswith(("dp/net/", "dp/lb/")) and re.search(r"\brte_\w+", tree.text(n))]
    assert not users

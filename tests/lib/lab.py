"""A small network of namespaces on one bridge, and the processes in it. Shared by the demo and the end-to-end tests.

    PREFIX-client 10.77.2.100 ─┐                 ┌─ PREFIX-t1 10.77.2.2  VIPs on lo
                               ├─ PREFIX-sw br0 ─┼─ PREFIX-t2 10.77.2.3
    PREFIX-lb     10.77.2.1   ─┘                 └─ PREFIX-t3 10.77.2.4     (IPv6: fd77:2:: with the same last part)

Namespaces and files are found by name, so that a run can clear up what a killed one left behind. Every process of a lab
runs in one of its namespaces: whatever is in there is the lab's and is ended with it.
"""

import contextlib
import ctypes
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

CLIENT, LB = "client", "lb"
CLIENT_V4, CLIENT_V6 = "10.77.2.100", "fd77:2::100"
FAR_V4, FAR_V6 = "10.77.9.100", "fd77:9::100"  # the client's as well; targets reach it by their default route, which is lb
LB_V4, LB_V6 = "10.77.2.1", "fd77:2::1"
TUNNEL_MTU = 1600  # room for an outer header around a client's 1500 bytes
NETNS = pathlib.Path("/run/netns")
CLONE_NEWNET = 0x40000000


class LabError(Exception):
    """Something did not go as it should; the text says what."""


class Ended(LabError):
    """A program that should be running has ended: there is nothing to wait for."""


def run(command, timeout=30, check=True, **options):
    done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL if "input" not in options else None, capture_output=True, text=True,
                          timeout=timeout, errors="replace", **options)
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def wait_until(what, condition, seconds=15, every=0.05):
    """The condition's first true value. What it raises while waiting counts as false."""
    end = time.monotonic() + seconds
    last = None
    while True:
        try:
            value = condition()
            if value:
                return value
        except Ended:
            raise
        except (LabError, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            last = error
        if time.monotonic() >= end:
            raise LabError(f"waited {seconds} s in vain: {what}" + (f" ({last})" if last else ""))
        time.sleep(every)


def socket_inside(lab, name, *arguments):
    """A socket in a lab's namespace: it stays in the one it was made in."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(path):
        with open(path, "rb") as handle:
            if libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns {path}")

    with open("/proc/thread-self/ns/net", "rb") as home:
        enter(NETNS / lab.namespace(name))
        try:
            return socket.socket(*arguments)
        finally:
            if libc.setns(home.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns home")


def end_processes(pids, seconds=5):
    """SIGTERM, then SIGKILL for those that stay."""
    def alive(pid):
        try:
            return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
        except OSError:
            return False

    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, seconds)):
        for pid in filter(alive, pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, number)
        end = time.monotonic() + patience
        while any(map(alive, pids)) and time.monotonic() < end:
            time.sleep(0.02)


class Process:
    """A running program; its output goes to a file in the lab's folder."""

    def __init__(self, name, command, log, die_with_us):
        self.name, self.log = name, log
        # The program shall not outlive a test run that is killed.
        prefix = ["setpriv", "--pdeathsig", "KILL", "--"] if die_with_us else []
        with open(log, "ab") as out:
            self.popen = subprocess.Popen([*prefix, *map(str, command)], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)

    @property
    def pid(self):
        return self.popen.pid

    def running(self):
        return self.popen.poll() is None

    def require_running(self):
        if not self.running():
            raise Ended(f"{self.name} ended with {self.popen.returncode}:\n{self.tail()}")
        return True

    def tail(self, lines=20):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, number=signal.SIGTERM, seconds=10):
        """Returns the exit code; negative: ended by that signal."""
        if self.running():
            self.popen.send_signal(number)
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait(seconds)
        return self.popen.returncode

    def kill(self):
        return self.stop(signal.SIGKILL)


class Adopted:
    """A program that another one has started and left to itself, as a Process."""

    def __init__(self, pid, log):
        self.pid, self.log = pid, log

    def running(self):
        try:
            return pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
        except OSError:
            return False

    def require_running(self):
        if not self.running():
            raise Ended(f"process {self.pid} has ended: see {self.log}")
        return True

    def stop(self, number=signal.SIGTERM, seconds=10):
        if self.running():
            os.kill(self.pid, number)
        try:
            wait_until(f"the end of {self.pid}", lambda: not self.running(), seconds, every=0.01)
        except LabError:
            os.kill(self.pid, signal.SIGKILL)
            wait_until(f"the end of {self.pid}", lambda: not self.running(), seconds)

    def kill(self):
        self.stop(signal.SIGKILL)


class Lab:
    """prefix: of namespace names. folder: for logs, sockets and state; made anew by up(), removed by down()."""

    def __init__(self, prefix, folder, vips=(), targets=3, queues=1, die_with_us=True, nat_vips=()):
        apart = os.environ.get("LB_LAB")  # another name, so that two checkouts can run tests at once
        self.prefix, self.folder = (f"{apart}-{prefix}", pathlib.Path(f"{folder}-{apart}")) if apart else (prefix, pathlib.Path(folder))
        self.vips = list(vips)
        self.nat_vips = list(nat_vips)  # of forwarding modes whose replies go through lb: no target has them
        self.targets = [f"t{i + 1}" for i in range(targets)]
        self.queues, self.die_with_us = queues, die_with_us
        self.nginx = {}

    @staticmethod
    def target_address(target, family="v4"):
        number = int(target[1:]) + 1
        return f"10.77.2.{number}" if family == "v4" else f"fd77:2::{number}"

    def namespace(self, name):
        return f"{self.prefix}-{name}"

    def inside(self, name, *command):
        # Not `ip netns exec`: that hides the mounts below /sys, bpffs among them.
        return ["nsenter", f"--net={NETNS / self.namespace(name)}", "--", *map(str, command)]

    def run(self, name, *command, **options):
        return run(self.inside(name, *command), **options)

    def start(self, where, name, *command):
        return Process(name, self.inside(where, *command), self.folder / f"{name}.log", self.die_with_us)

    # The network.

    def up(self):
        self.down()
        for path in (self.folder, self.folder / "bpf"):
            path.mkdir(parents=True, exist_ok=True)
        run(["mount", "-t", "bpf", "bpf", self.folder / "bpf"])
        self._make_bridge()
        self._join(CLIENT, CLIENT_V4, CLIENT_V6, 0xFE, mtu=1500)
        self._join(LB, LB_V4, LB_V6, 0x01, mtu=TUNNEL_MTU, queues=self.queues)
        for i, target in enumerate(self.targets):
            self._join(target, self.target_address(target), self.target_address(target, "v6"), 0x11 + i, mtu=TUNNEL_MTU)
        self._set_up_client()
        for target in self.targets:
            self._set_up_target(target)

    def ip(self, name, *lines):
        run(["ip", "-n", self.namespace(name), "-batch", "-"], input="\n".join(lines) + "\n")

    def _sysctl(self, name, **values):
        self.run(name, "sysctl", "-qw", *[f"net.{key.replace('__', '.')}={value}" for key, value in values.items()])

    def _make_bridge(self):
        run(["ip", "netns", "add", self.namespace("sw")])
        # Without snooping and with learning at once: frames flow from the first one on.
        self.ip("sw", "link set lo up", "link add br0 type bridge mcast_snooping 0 forward_delay 0",
                 f"link set br0 mtu {TUNNEL_MTU} up")
        self._sysctl("sw", ipv6__conf__all__disable_ipv6=1)
        # A plain switch: where netfilter looks at bridged frames, it drops the malformed ones that tests send.
        self.run("sw", "sysctl", "-eqw", "net.bridge.bridge-nf-call-iptables=0", "net.bridge.bridge-nf-call-ip6tables=0")

    def _join(self, name, v4, v6, mac, mtu, queues=1):
        full = self.namespace(name)
        run(["ip", "netns", "add", full])
        count = f"numrxqueues {queues} numtxqueues {queues}"
        self._sysctl(name, ipv6__conf__default__accept_dad=0, ipv6__conf__default__accept_ra=0)
        self.ip(name, "link set lo up", f"link add eth0 {count} type veth peer name p-{name} netns {self.namespace('sw')} {count}",
                 f"link set eth0 address 02:00:00:77:02:{mac:02x} mtu {mtu}", f"addr add {v4}/24 dev eth0", f"addr add {v6}/64 dev eth0 nodad",
                 "link set eth0 up")
        self.ip("sw", f"link set p-{name} mtu {TUNNEL_MTU} master br0 up")

    def set_queues(self, queues):
        """Receive queues of the balancer's interface, at most as many as the lab was made with. Before lb-dp starts."""
        self._set_channels("sw", f"p-{LB}", min(queues, self._channels("sw", f"p-{LB}")))
        self._set_channels(LB, "eth0", queues)

    def use_queues(self, count=None):
        """The wire spreads over so many of them, or all. After lb-dp has started: a veth's new queue knows no XDP program until then."""
        self._set_channels("sw", f"p-{LB}", count or self._channels(LB, "eth0"))

    def _channels(self, where, interface):
        now = self.run(where, "ethtool", "-l", interface).stdout.partition("Current")[2]
        return int(now.partition("RX:")[2].split()[0])

    def _set_channels(self, where, interface, count):
        if self._channels(where, interface) != count:  # ethtool fails where nothing would change
            self.run(where, "ethtool", "-L", interface, "rx", count, "tx", count)

    def _set_up_client(self):
        # A frame that reaches an AF_XDP socket must carry its checksums: nobody fills them in later.
        self.run(CLIENT, "ethtool", "-K", "eth0", "tx", "off")
        # A flow keeps its queue, and so its worker; ports from 40000 on are for those who choose theirs.
        self._sysctl(CLIENT, core__txrehash=0, ipv4__ip_local_port_range="10000 39999",
                     ipv4__tcp_max_tw_buckets=0)  # a chosen port can be used again at once
        self.ip(CLIENT, f"addr add {FAR_V4}/32 dev eth0", f"addr add {FAR_V6}/128 dev eth0 nodad preferred_lft 0",
                 *[f"route add {vip} via {LB_V6 if ':' in vip else LB_V4}" for vip in self.vips],
                 *[f"route add {vip} via " + (f"{LB_V6} src {FAR_V6}" if ":" in vip else f"{LB_V4} src {FAR_V4}") for vip in self.nat_vips])

    def _set_up_target(self, target):
        self.run(target, "ethtool", "-K", "eth0", "tx", "off")
        # The target answers from the VIP but must not claim it on the wire: the VIP's traffic goes to the balancer.
        self._sysctl(target, ipv4__conf__all__arp_ignore=1, ipv4__conf__all__arp_announce=2, ipv4__conf__all__rp_filter=0,
                     ipv4__conf__eth0__rp_filter=0)
        self.ip(target, f"route add default via {LB_V4}", f"route add default via {LB_V6}",
                 *[f"addr add {vip}/{'128 ' if ':' in vip else '32'} dev lo {'nodad' if ':' in vip else ''}" for vip in self.vips])

    # nginx on the targets.

    def start_nginx(self, target):
        home = self.folder / f"nginx-{target}"
        home.mkdir(exist_ok=True)
        (home / "index.html").write_text(f"{target}\n")
        with open(home / "big", "wb") as big:
            big.truncate(4 << 20)
        (home / "nginx.conf").write_text(f"""
daemon off; master_process off; pid {home}/pid; error_log {home}/error.log; user root;
events {{ worker_connections 4096; }}
http {{
  access_log off; default_type text/plain; keepalive_requests 1000000; reset_timedout_connection on; root {home};
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server {{
    listen 80 reuseport; listen [::]:80 ipv6only=on reuseport; listen 8080 reuseport; listen [::]:8080 ipv6only=on reuseport;
    location / {{ add_header X-Target {target}; try_files $uri /index.html; }}
    location /slow {{ add_header X-Target {target}; alias {home}/big; limit_rate 512k; }}
    location /peer {{ return 200 "$remote_addr $remote_port\n"; }}
  }}
  server {{
    listen 8090 proxy_protocol; listen [::]:8090 ipv6only=on proxy_protocol;
    location / {{ try_files $uri /index.html; }}
    location /client {{ return 200 "$proxy_protocol_addr $proxy_protocol_port\n"; }}
  }}
}}
""")
        self.nginx[target] = self.start(target, f"nginx-{target}", "nginx", "-p", home, "-c", home / "nginx.conf", "-e", home / "error.log")
        wait_until(f"nginx on {target}", lambda: self.nginx[target].require_running() and self.run(
            target, "curl", "-sf", "--max-time", "2", f"http://{self.target_address(target)}/"))

    def curl(self, *arguments, timeout=30, check=True):
        if "--local-port" in arguments:
            # The connection before from there may wait for its last acknowledgement still: a port is free a moment after curl has gone.
            port = arguments[arguments.index("--local-port") + 1]
            wait_until(f"port {port} to be free", lambda: not self.run(CLIENT, "ss", "-Htan", f"sport = :{port}").stdout)
        return self.run(CLIENT, "curl", "-sS", "--max-time", timeout - 5, *arguments, timeout=timeout, check=check).stdout

    # Taking it down.

    def leftover_namespaces(self):
        return sorted(p.name for p in NETNS.glob(f"{self.prefix}-*")) if NETNS.is_dir() else []

    def down(self):
        """Ends the lab's processes and removes its namespaces, mounts and files, whoever made them."""
        names = self.leftover_namespaces()
        pids = []
        for name in names:
            pids += [int(p) for p in run(["ip", "netns", "pids", name], check=False).stdout.split()]
        end_processes(sorted(set(pids) - {os.getpid()}))
        for process in self.nginx.values():
            process.popen.poll()
        self.nginx = {}
        for name in names:
            run(["ip", "netns", "del", name], check=False)
        while run(["umount", self.folder / "bpf"], check=False).returncode == 0:
            pass
        shutil.rmtree(self.folder, ignore_errors=True)

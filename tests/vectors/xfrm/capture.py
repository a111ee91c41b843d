"""Make `iproute2-VERSION.json` anew: run as root under `unshare -n`; needs ip(8) and strace(1).

Each entry is a command of iproute2, its exit status, and the netlink messages of NETLINK_XFRM it sent and
received, in hexadecimal, as strace saw them pass through the system calls. All run in one network
namespace, in this order.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

GCM = "rfc4106(gcm(aes)) 0x000102030405060708090a0b0c0d0e0f10111213 128"
SHA256 = "hmac(sha256) 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
CBC = "cbc(aes) 0x202122232425262728292a2b2c2d2e2f"
V4 = "src 192.0.2.1 dst 192.0.2.2 proto esp"
V6 = "src 2001:db8::1 dst 2001:db8::2 proto esp"
TMPL = "tmpl src 192.0.2.1 dst 192.0.2.2 proto esp reqid 7 mode tunnel"

COMMANDS = (
    f"state add {V4} spi 0x1001 reqid 7 mode tunnel replay-window 32 aead {GCM} "
    "sel src 10.1.0.0/16 dst 10.2.0.0/16",
    f"state add {V6} spi 0x1002 reqid 8 mode transport replay-window 128 flag esn auth-trunc {SHA256} 128 "
    f"enc {CBC} "
    "mark 0x10 mask 0xff if_id 42 output-mark 0x20 mask 0xf0 tfcpad 100",
    "state add src 192.0.2.1 dst 192.0.2.2 proto ah spi 0x1003 mode transport "
    "auth hmac(sha1) 0x000102030405060708090a0b0c0d0e0f10111213",
    f"state add {V4} spi 0x1004 mode tunnel aead {GCM} encap espinudp 4500 4501 192.0.2.9 "
    "limit byte-soft 1000000 limit byte-hard 2000000 limit packet-soft 3000 limit packet-hard 4000 "
    "limit time-soft 50 limit time-hard 60 limit time-use-soft 70 limit time-use-hard 80 "
    "extra-flag dont-encap-dscp offload dev lo dir in",
    "state add src 192.0.2.1 dst 192.0.2.2 proto comp spi 0x1005 mode tunnel comp deflate",
    "state add src 2001:db8::1 dst 2001:db8::2 proto route2 mode ro coa 2001:db8::3",
    f"state add {V4} spi 0x1006 mode tunnel flag noecn flag decap-dscp flag af-unspec "
    f"ctx system_u:object_r:ipsec_spd_t enc {CBC} replay-seq 5 replay-oseq 6",
    f"state add {V4} spi 0x1007 mode beet replay-window 64 replay-seq-hi 1 replay-seq 2 flag esn enc {CBC}",
    f"state update {V4} spi 0x1001 mode tunnel aead {GCM}",
    f"state allocspi {V4} reqid 9 mode tunnel min 0x2000 max 0x2000",
    f"state allocspi {V6} reqid 9 mode transport min 0x3000 max 0x30ff",
    f"state get {V4} spi 0x2000",
    "state list",
    "state list src 192.0.2.0/24 proto esp",
    "-s state count",
    f"state delete {V4} spi 0x2000",
    f"state delete {V4} spi 0x9999",
    "state flush proto ah",
    "state deleteall",
    f"policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir out priority 1000 {TMPL}",
    "policy add src 10.2.0.0/16 dst 10.1.0.0/16 proto tcp sport 80 dport 1000 dir in "
    "tmpl src 192.0.2.2 dst 192.0.2.1 proto esp spi 0x1234 reqid 7 mode tunnel level use "
    "tmpl proto ah mode transport",
    "policy add src 10.2.0.0/16 dst 10.1.0.0/16 dir fwd action block priority 5 limit time-hard 3600 "
    "limit packet-soft 9",
    "policy add src 2001:db8:1::/64 dst 2001:db8:2::/64 dir out flag localok flag icmp mark 5 mask 7 "
    "if_id 9 tmpl src 2001:db8::1 dst 2001:db8::2 proto esp mode transport",
    "policy add src 10.9.0.0/16 dst 10.8.0.0/16 dir in ptype sub",
    f"policy update src 10.1.0.0/16 dst 10.2.0.0/16 dir out priority 900 {TMPL}",
    "policy get src 10.1.0.0/16 dst 10.2.0.0/16 dir out",
    "policy list",
    "-s policy count",
    "policy set hthresh4 24 32 hthresh6 48 64",
    "policy setdefault in block fwd accept out accept",
    "policy getdefault",
    "policy setdefault in accept fwd accept out accept",
    "policy delete src 10.1.0.0/16 dst 10.2.0.0/16 dir out",
    "policy delete index 8 dir in",
    "policy flush ptype sub",
    "policy flush",
)
#: What `ip xfrm monitor` sees: shell commands that make the kernel tell something.
EVENTS = (
    "sysctl -q -w net.core.xfrm_acq_expires=1",
    "ip link add d0 type veth peer name d1",
    "ip addr add 192.0.2.1/24 dev d0",
    "ip link set d0 up; ip link set d1 up",
    "ip neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev d0",
    f"ip xfrm policy add src 192.0.2.1/32 dst 192.0.2.2/32 dir out priority 3 {TMPL}",
    "ip xfrm policy add src 10.9.0.0/16 dst 10.8.0.0/16 dir in limit time-soft 1 limit time-hard 2",
    "ping -c 1 -W 1 192.0.2.2",
    f"ip xfrm state allocspi {V4} reqid 9 mode tunnel min 0x2000 max 0x2000",
    f"ip xfrm state delete {V4} spi 0x2000",
    f"ip xfrm state allocspi {V4} reqid 9 mode tunnel min 0x2001 max 0x2001",
    "sleep 3",
    f"ip xfrm policy update src 192.0.2.1/32 dst 192.0.2.2/32 dir out priority 4 {TMPL}",
    "ip xfrm policy delete src 192.0.2.1/32 dst 192.0.2.2/32 dir out",
    "ip xfrm policy add src 10.9.0.0/16 dst 10.8.0.0/16 dir fwd",
    "ip xfrm policy flush",
    f"ip xfrm state allocspi {V4} reqid 9 mode tunnel min 0x2002 max 0x2002",
    "ip xfrm state flush",
)
_DUMP = re.compile(r"^ \| [0-9a-f]{5,}  ((?:[0-9a-f]{2} +)+)")


def system_calls(trace: str) -> list[tuple[str, bytes]]:
    """Return the name and the bytes of every system call on a NETLINK_XFRM socket, from strace's output."""
    calls: list[tuple[str, bytearray]] = []
    wanted = False
    for line in trace.splitlines():
        if found := re.match(r"^(?:\d+ +)?(sendto|sendmsg|recvmsg)\(", line):
            wanted = "XFRM_MSG_" in line or "NLMSG_" in line
            if wanted:
                calls.append((found[1], bytearray()))
        elif wanted and (dump := _DUMP.match(line)):
            calls[-1][1].extend(bytes.fromhex(dump[1]))
    return [(name, bytes(data)) for name, data in calls if data]


def messages(data: bytes) -> list[str]:
    """Return each netlink message of a datagram in hexadecimal."""
    found = []
    while data:
        length = int.from_bytes(data[:4], sys.byteorder)
        found.append(data[:length].hex())
        data = data[(length + 3) & ~3 :]
    return found


def traced(argv: list[str], trace: Path) -> list[str]:
    """Return the command line that traces `argv` into a file."""
    calls = "sendto,sendmsg,recvmsg"
    return [
        "strace",
        "-f",
        "-o",
        str(trace),
        "-e",
        f"trace={calls}",
        "-e",
        "read=all",
        "-e",
        "write=all",
        *argv,
    ]


def entry(command: str, status: int, trace: Path) -> dict[str, object]:
    """Return what one command is to have in the file."""
    calls = system_calls(trace.read_text())
    return {
        "command": command,
        "status": status,
        "sent": [one for name, data in calls if name.startswith("send") for one in messages(data)],
        "received": [one for name, data in calls if name == "recvmsg" for one in messages(data)],
    }


def main() -> None:
    """Run everything and write the file."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    version = subprocess.run(["ip", "-V"], capture_output=True, text=True, check=True).stdout
    entries = []
    with tempfile.TemporaryDirectory() as scratch:
        trace = Path(scratch) / "trace"
        for command in COMMANDS:
            argv = ["ip", *(["-s"] if command.startswith("-s ") else []), "xfrm"]
            argv += command.removeprefix("-s ").split()
            done = subprocess.run(traced(argv, trace), capture_output=True, text=True, check=False)
            entries.append(entry(" ".join(argv), done.returncode, trace))
        monitor = subprocess.Popen(
            traced(["timeout", "9", "ip", "xfrm", "monitor"], trace), stdout=subprocess.DEVNULL
        )
        subprocess.run(["sleep", "1"], check=True)
        for line in EVENTS:
            subprocess.run(["sh", "-c", line], check=False, stdout=subprocess.DEVNULL)
        monitor.wait()
        entries.append(entry("ip xfrm monitor", 0, trace) | {"while": list(EVENTS)})
    name = version.split("iproute2-")[1].split(",")[0]
    text = json.dumps({"iproute2": name, "kernel": os.uname().release, "entries": entries}, indent=1)
    Path(__file__).with_name(f"iproute2-{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()

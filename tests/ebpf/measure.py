"""Print what classification costs: nanoseconds a packet, by BPF_PROG_TEST_RUN, for SPDs of several sizes.

Run as root: `python -m tests.ebpf.measure`. No test: what it prints depends on the machine.
"""

import os
import statistics
import subprocess
from ipaddress import ip_address

from scapy.layers.inet import IP, UDP
from scapy.packet import Packet, Raw

from gateway.host.bpf.abi import SAS, InboundSa, Spi
from gateway.host.bpf.objects import LoadedObject
from gateway.host.bpf.spd import SpdMaps, compile_spd
from gateway.ipsec.policy import Action, Policy
from tests.conformance.namespace import fresh_network_namespace
from tests.ebpf.program_table import link, loaded_program, policy
from tests.ebpf.xsk import receiver

TUNNELS = (1, 100, 2000, 20000)
RUNS, REPEAT = 7, 1_000_000
US = "192.0.2.1"


def spoke(number: int, last: int) -> str:
    """Return an address behind the tunnel of this number."""
    return f"{100 + number // 65536}.{number // 256 % 256}.{number % 256}.{last}"


def tunnels(count: int) -> list[Policy]:
    return [
        policy(f"t{number:05}", Action.PROTECT, "10.0.0.0/8", f"{spoke(number, 0)}/24")
        for number in range(count)
    ]


def frames(count: int) -> dict[str, tuple[str, Packet]]:
    """Return for each case the program and what it gets; the last tunnel is asked for."""
    far = spoke(count - 1, 7)
    esp = Raw((0x10000 + count - 1).to_bytes(4, "big") + bytes(36))
    return {
        "in: known SPI": ("inbound", link() / IP(src="192.0.2.2", dst=US, proto=50) / esp),
        "in: clear, PROTECT": ("inbound", link() / IP(src=far, dst="10.1.1.1") / UDP()),
        "in: clear, no entry": ("inbound", link() / IP(src="203.0.113.1", dst="10.1.1.1") / UDP()),
        "out: PROTECT": ("outbound", link() / IP(src="10.1.1.1", dst=far) / UDP()),
    }


def fill(loaded: LoadedObject, count: int) -> None:
    SpdMaps(loaded.maps).publish(compile_spd(tunnels(count)))
    sa = InboundSa(destination=ip_address(US), protocol=50)
    SAS.of(loaded.maps).set_many({Spi(0x10000 + number): sa for number in range(count)})


def measure(count: int) -> None:
    with (
        loaded_program("xdp_inbound") as inbound,
        loaded_program("xdp_outbound", inbound.maps) as outbound,
        receiver() as engine,
    ):
        fill(inbound, count)
        inbound.maps["gw_xsks"].update(bytes(4), engine.value)
        programs = {"inbound": inbound.programs["gw_inbound"], "outbound": outbound.programs["gw_outbound"]}
        cases = frames(count)
        results: dict[str, list[int]] = {name: [] for name in cases}
        for _ in range(RUNS):  # interleaved: what disturbs the machine disturbs every case
            for name, (program, frame) in cases.items():
                results[name].append(programs[program].test_run(bytes(frame), repeat=REPEAT).nanoseconds)
    for name, values in results.items():
        print(f"{count:6} {name:20} {statistics.median(values):4.0f} ns ({min(values)} to {max(values)})")


def main() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with fresh_network_namespace():
        subprocess.run(["ip", "link", "set", "beyond", "down"], check=True)
        for count in TUNNELS:
            measure(count)


if __name__ == "__main__":
    main()

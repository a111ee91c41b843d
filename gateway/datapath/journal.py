"""What an engine does not keep of our SAs and policies, for the next life of the agent: no keys.

A file of JSON lines in the agent's run directory, which the machine forgets with its SAs at a reboot. Each
line says that a thing of some kind is there, or, without a body, that it is gone; the last one about a name
holds. A line that makes no sense, as the last one of a process that was killed, is passed over.

It outlives this process, not the machine: what was written is not forced to the disk.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any, Final, TextIO, TypeVar

from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.interface import TunnelInterface
from gateway.ipsec.lifetime import Lifetime, Limit
from gateway.ipsec.mark import Mark
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.policy import Action, Policy
from gateway.ipsec.sa import (
    Direction,
    IpAddress,
    IpsecProtocol,
    Mode,
    SecurityAssociation,
    Spi,
    UdpEncapsulation,
)
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector
from gateway.observe.logs import get_logger

_log = get_logger(__name__)

T = TypeVar("T")

#: One line, or a part of it: what `json` reads and writes.
Json = dict[str, Any]

_MALFORMED: Final = (ValueError, KeyError, TypeError, AttributeError)
"""What a line raises that says something else than it should."""
_SPARE_LINES: Final = 1000
"""The file is written anew when it has so many lines more than twice what is there."""


class Journal:
    """The file; without a path nothing is remembered. First `read`, then `begin`.

    Args:
        path: Of the file; only its owner may read it.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._lines = 0
        self._there: dict[str, Json] = {}
        """By kind and name, with a space between: the body of its line."""

    def read(self) -> None:
        """Read what the last life noted.

        Raises:
            OSError: The file cannot be read.
        """
        if self._path is None or not self._path.exists():
            return
        for line in self._path.read_text(errors="replace").splitlines():
            try:
                kind, name, body = json.loads(line)
            except _MALFORMED:
                _log.warning("journal_line_passed_over")
                continue
            self._keep(f"{kind} {name}", body)

    def parsed(self, kind: str, parse: Callable[[Json], T]) -> Iterator[T]:
        """Return what is noted of a kind, in the order of the notes; what does not parse is forgotten."""
        for key, body in tuple(self._there.items()):
            if not key.startswith(f"{kind} "):
                continue
            try:
                yield parse(body)
            except _MALFORMED as error:
                _log.warning("journal_entry_passed_over", name=key, reason=str(error))
                del self._there[key]

    def begin(self) -> None:
        """Begin to note, behind what is there.

        Raises:
            OSError: The file cannot be written.
        """
        if self._path is not None:
            self._write_anew()

    def _keep(self, key: str, body: Json | None) -> None:
        # Behind all others, as in the file: SAs are told from older ones by it.
        self._there.pop(key, None)
        if body is not None:
            self._there[key] = body

    def note(self, kind: str, name: str, body: Json | None) -> bool:
        """Note that a thing is there, or, without a body, that it is gone; return whether that is written."""
        key = f"{kind} {name}"
        if self._path is None or self._there.get(key) == body:
            return True
        if self._file is None:
            return False
        self._keep(key, body)
        try:
            self._file.write(_line(key, body))
            self._file.flush()
            self._lines += 1
            if self._lines > 2 * len(self._there) + _SPARE_LINES:
                self._write_anew()
        except OSError as error:
            # Traffic goes on; the next life will not adopt what is not noted.
            _log.error("journal_not_written", path=self._path, reason=str(error))
            return False
        return True

    def forget(self, kind: str, name: str) -> bool:
        """Note that a thing is gone; return whether that is written."""
        return self.note(kind, name, None)

    def _write_anew(self) -> None:
        """Write what is there into a new file, which takes the place of the old one whole."""
        assert self._path is not None
        self.close()
        beside = self._path.with_name(f"{self._path.name}.new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "w")
        self._file.writelines(_line(key, body) for key, body in self._there.items())
        self._file.flush()
        beside.replace(self._path)
        self._lines = len(self._there)

    def remove(self) -> None:
        """Forget everything, and the file."""
        self.close()
        self._there.clear()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


_encode: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
"""Made once: to make it costs more than a line."""


def _line(key: str, body: Json | None) -> str:
    kind, _, name = key.partition(" ")
    return _encode([kind, name, body]) + "\n"


# --- records as JSON ------------------------------------------------------------------------------


def encode_sa(sa: SecurityAssociation) -> Json:
    """Return an SA as JSON, without keys."""
    return {
        "spi": sa.spi,
        "direction": sa.direction.value,
        "protocol": sa.protocol.value,
        "mode": sa.mode.value,
        "source": str(sa.source),
        "destination": str(sa.destination),
        "encapsulation": encode_ports(sa.encapsulation),
        "encryption": sa.encryption.value,
        "key_bits": sa.key_bits,
        "integrity": sa.integrity.value,
        "esn": sa.esn,
        "replay_window_packets": sa.replay_window_packets,
        "local_ts": _encode_selectors(sa.local_ts),
        "remote_ts": _encode_selectors(sa.remote_ts),
        "soft": _encode_limit(sa.lifetime.soft),
        "hard": _encode_limit(sa.lifetime.hard),
        "copy_dscp": sa.copy_dscp,
        "copy_df": sa.copy_df,
        "tfc_padding_bytes": sa.tfc_padding_bytes,
        "connection": sa.connection,
        "child": sa.child,
        "child_sa_id": sa.child_sa_id,
        "placement": _encode_placement(sa.placement),
        "interface_id": sa.interface_id,
        "cpu": sa.cpu,
        "mark": _encode_mark(sa.mark),
        "set_mark": _encode_mark(sa.set_mark),
    }


def parse_sa(value: Json) -> SecurityAssociation:
    """Return the SA in a line; it has no keys.

    Raises:
        ValueError, KeyError, TypeError: It is none.
    """
    return SecurityAssociation(
        spi=Spi(value["spi"]),
        direction=Direction(value["direction"]),
        protocol=IpsecProtocol(value["protocol"]),
        mode=Mode(value["mode"]),
        source=ip_address(value["source"]),
        destination=ip_address(value["destination"]),
        encapsulation=parse_ports(value["encapsulation"]),
        encryption=Encr(value["encryption"]),
        encryption_key=Secret(b""),
        key_bits=value["key_bits"],
        integrity=Integ(value["integrity"]),
        esn=value["esn"],
        replay_window_packets=value["replay_window_packets"],
        local_ts=_parse_selectors(value["local_ts"]),
        remote_ts=_parse_selectors(value["remote_ts"]),
        lifetime=Lifetime(soft=_parse_limit(value["soft"]), hard=_parse_limit(value["hard"])),
        copy_dscp=value["copy_dscp"],
        copy_df=value["copy_df"],
        tfc_padding_bytes=value["tfc_padding_bytes"],
        connection=value["connection"],
        child=value["child"],
        child_sa_id=value["child_sa_id"],
        placement=_parse_placement(value["placement"]),
        interface_id=value["interface_id"],
        cpu=value.get("cpu"),
        mark=_parse_mark(value.get("mark")),
        set_mark=_parse_mark(value.get("set_mark")),
    )


def encode_policy(policy: Policy) -> Json:
    """Return an SPD entry as JSON."""
    return {
        "name": policy.name,
        "action": policy.action.value,
        "local_ts": _encode_selectors(policy.local_ts),
        "remote_ts": _encode_selectors(policy.remote_ts),
        "priority": policy.priority,
        "mode": policy.mode.value,
        "protocol": policy.protocol.value,
        "local_address": _encode_address(policy.local_address),
        "remote_address": _encode_address(policy.remote_address),
        "acquire": policy.acquire,
        "connection": policy.connection,
        "child": policy.child,
        "placement": _encode_placement(policy.placement),
        "interface_id": policy.interface_id,
        "interface": _encode_interface(policy.interface),
        "mark_in": _encode_mark(policy.mark_in),
        "mark_out": _encode_mark(policy.mark_out),
    }


def parse_policy(value: Json) -> Policy:
    """Return the SPD entry in a line.

    Raises:
        ValueError, KeyError, TypeError: It is none.
    """
    return Policy(
        name=value["name"],
        action=Action(value["action"]),
        local_ts=_parse_selectors(value["local_ts"]),
        remote_ts=_parse_selectors(value["remote_ts"]),
        priority=value["priority"],
        mode=Mode(value["mode"]),
        protocol=IpsecProtocol(value["protocol"]),
        local_address=_parse_address(value["local_address"]),
        remote_address=_parse_address(value["remote_address"]),
        acquire=value["acquire"],
        connection=value["connection"],
        child=value["child"],
        placement=_parse_placement(value["placement"]),
        interface_id=value["interface_id"],
        interface=_parse_interface(value.get("interface")),
        mark_in=_parse_mark(value.get("mark_in")),
        mark_out=_parse_mark(value.get("mark_out")),
    )


def _encode_selectors(selectors: Iterable[TrafficSelector]) -> list[str]:
    return [str(selector) for selector in selectors]


def _parse_selectors(texts: Iterable[str]) -> tuple[TrafficSelector, ...]:
    return tuple(TrafficSelector.parse(text) for text in texts)


def _encode_interface(interface: TunnelInterface | None) -> Json | None:
    if interface is None:
        return None
    return {
        "name": interface.name,
        "id": interface.id,
        "mtu_bytes": interface.mtu_bytes,
        "addresses": [str(address) for address in interface.addresses],
        "routes": [str(route) for route in interface.routes],
        "vrf": interface.vrf,
    }


def _parse_interface(value: Json | None) -> TunnelInterface | None:
    if value is None:
        return None
    return TunnelInterface(
        name=value["name"],
        id=value["id"],
        mtu_bytes=value["mtu_bytes"],
        addresses=tuple(ip_interface(address) for address in value["addresses"]),
        routes=tuple(ip_network(route) for route in value["routes"]),
        vrf=value["vrf"],
    )


def _encode_mark(mark: Mark | None) -> str | None:
    return None if mark is None else str(mark)


def _parse_mark(text: str | None) -> Mark | None:
    return None if text is None else Mark.parse(text)


def _encode_placement(placement: Placement) -> list[Any]:
    return [
        [engine.value for engine in placement.prefer],
        placement.require.value if placement.require else None,
    ]


def _parse_placement(value: list[Any]) -> Placement:
    prefer, require = value
    return Placement(
        prefer=tuple(Engine(engine) for engine in prefer),
        require=None if require is None else Engine(require),
    )


def encode_ports(encapsulation: UdpEncapsulation | None) -> list[int] | None:
    """Return the ports of ESP in UDP as JSON."""
    return None if encapsulation is None else [encapsulation.source_port, encapsulation.destination_port]


def parse_ports(ports: list[int] | None) -> UdpEncapsulation | None:
    """Return ports that were JSON."""
    return None if ports is None else UdpEncapsulation(source_port=ports[0], destination_port=ports[1])


def _encode_limit(limit: Limit) -> list[float | int | None]:
    return [limit.seconds, limit.bytes, limit.packets]


def _parse_limit(value: list[Any]) -> Limit:
    seconds, size, packets = value
    return Limit(seconds=seconds, bytes=size, packets=packets)


def _encode_address(address: IpAddress | None) -> str | None:
    return None if address is None else str(address)


def _parse_address(text: str | None) -> IpAddress | None:
    return None if text is None else ip_address(text)

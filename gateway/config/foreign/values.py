"""Values that the foreign dialects share: times, sizes, addresses, traffic selectors, identities.

Each function returns the text of our configuration file, or raises `ValueError` with what is wrong.
"""

import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from gateway.ipsec.errors import VocabularyError
from gateway.ipsec.identity import parse_identity
from gateway.ipsec.selectors import TrafficSelector

ANY_ADDRESSES: Final = frozenset({"%any", "%any4", "%any6", "0.0.0.0", "::", "0::0"})  # noqa: S104 - not bound
MIN_REPLAY_WINDOW: Final = 64
MAX_REPLAY_WINDOW: Final = 4096

_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES: Final = {"": 1, **{f"{letter}iB": 1 << (10 * n) for n, letter in enumerate("KMGTPE", 1)}}


def seconds(text: str) -> float:
    """Return a time: a number with `s`, `m`, `h` or `d`, seconds without."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([smhd]?)", text)
    if found is None:
        raise ValueError(f"'{text}' is no time, as 90, 90s, 15m or 1h")
    return float(found[1]) * _UNITS[found[2]]


def count(text: str) -> int:
    """Return a number of bytes or packets, with `KiB` to `EiB` where a dialect knows them."""
    found = re.fullmatch(r"([0-9]+)\s*([KMGTPE]iB)?", text)
    if found is None:
        raise ValueError(f"'{text}' is no number of bytes or packets")
    return int(found[1]) * _SIZES[found[2] or ""]


def replay_window(text: str) -> tuple[int, str]:
    """Return the nearest window that we have, and what is to be said if it is another one."""
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise ValueError(f"'{text}' is no number of packets")
    wanted = int(text)
    if wanted == 0:
        raise ValueError("anti-replay cannot be turned off; our window of 1024 packets is used")
    window = min(max(wanted, MIN_REPLAY_WINDOW), MAX_REPLAY_WINDOW)
    return window, "" if window == wanted else f"{wanted} packets are carried as {window}"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Outer addresses of one side as a dialect lists them."""

    places: tuple[str, ...]
    """Addresses and host names, in their order; empty: any."""
    ranges: tuple[str, ...]
    """Networks and ranges: who may come from where."""


def addresses(items: tuple[str, ...]) -> Addresses:
    """Sort outer addresses; `%` before one that is no magic word is passed over."""
    places: list[str] = []
    ranges: list[str] = []
    for item in items:
        if item.lower() in ANY_ADDRESSES:
            continue
        plain = item.removeprefix("%")
        is_range = "/" in plain or re.fullmatch(r"[0-9a-fA-F.:]+-[0-9a-fA-F.:]+", plain)
        (ranges if is_range else places).append(plain)
    return Addresses(tuple(places), tuple(ranges))


def is_address(text: str) -> bool:
    """Say whether a text is an IP address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def identity(text: str) -> str:
    """Return an identity in our spelling, which is strongSwan's but for what that does not convert."""
    if re.match(r"\{[0-9]+\}:", text):
        raise ValueError("a number as the type of an identity is not understood")
    kind = text.partition(":")[0].lower()
    if kind in ("ipv4", "ipv6") and is_address(text.partition(":")[2]):
        raise ValueError(f"{text} is for strongSwan the letters of an address; write the address alone")
    try:
        return str(parse_identity(text))
    except UnicodeEncodeError:
        raise ValueError("the identity is not UTF-8; write it as keyid:# and hex digits") from None
    except VocabularyError as error:
        raise ValueError(str(error)) from None


def libreswan_identity(text: str) -> str:
    """Return an identity of libreswan's: a bare name would be resolved, `@name` is one."""
    if found := re.fullmatch(r"@\[(.+)\]", text):
        return identity(f"keyid:{found[1]}")
    if text.startswith("@~"):
        return identity(f"@#{text[2:]}")
    if "=" in text:
        return identity(text.replace(",,", "\\,"))
    if text.startswith("@") or is_address(text) or "@" in text:
        return identity(text)
    raise ValueError(
        f"'{text}' is resolved to an address when libreswan loads it; write that address or @{text}"
    )


# --- traffic selectors --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Upper:
    """What a selector says above IP: `[protocol/port]`, both as written."""

    protocol: str = ""
    port: str = ""


def upper(text: str) -> Upper:
    """Return protocol and port of `tcp/https`, `17`, `%any/53`, `udp/%any`, `/53`."""
    protocol, _, port = text.strip().partition("/")
    return Upper(protocol.strip(), port.strip())


def selector(address: str, above: Upper) -> str:
    """Return one selector in our spelling, names of protocols and services looked up."""
    text = f"{address}[{_protocol(above.protocol)}/{_port(above)}]" if above != Upper() else address
    try:
        return str(TrafficSelector.parse(text))
    except VocabularyError as error:
        raise ValueError(str(error)) from None


def _protocol(name: str) -> str:
    if name.lower() in ("", "any", "%any", "0"):
        return "any"
    if name.isdecimal() or name.lower() in ("ipv6-icmp", "icmp6"):
        return name.lower()
    try:
        return str(socket.getprotobyname(name.lower()))
    except OSError:
        raise ValueError(f"'{name}' is no protocol of /etc/protocols") from None


def _port(above: Upper) -> str:
    port = above.port.removeprefix("%").lower()
    if port in ("", "any"):
        return "any"
    if port == "opaque" or re.fullmatch(r"[0-9]+(-[0-9]+)?", port):
        return port
    try:
        return str(socket.getservbyname(port))
    except OSError:
        raise ValueError(f"'{above.port}' is no service of /etc/services") from None

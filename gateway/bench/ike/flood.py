"""A process that sends IKE_SA_INIT requests from forged addresses at a steady rate.

    python -m gateway.bench.ike.flood DESTINATION --rate 20000 --seconds 20

Sources are drawn from 198.18.0.0/15 (RFC 2544's range for measurements), SPIs and nonces are all different,
and the key exchange is a well-formed public value, so that nothing but the lack of a cookie gives a request
away. It needs CAP_NET_RAW, and belongs into a namespace. Prints `ready`, sends, then prints JSON: `sent`,
`elapsed_s`, `refused` (by the local kernel).
"""

import argparse
import json
import random
import socket
import struct
import sys
import time
from ipaddress import IPv4Address
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gateway.bench.ike.suites import DEFAULT_SUITE
from gateway.ike.path import IKE_PORT
from gateway.ike.wire.header import NO_SPI, ExchangeType, HeaderFlag, IkeHeader
from gateway.ike.wire.message import encode_message
from gateway.ike.wire.payloads import KePayload, NoncePayload, SaPayload
from gateway.ike.wire.sa_payload import wire_proposals
from gateway.ipsec.algorithms import Ke
from gateway.ipsec.proposal import ProtocolId, parse_proposal

_SOURCES: Final = int(IPv4Address("198.18.0.0"))
_SOURCE_BITS: Final = 17
_BURST: Final = 50
_NONCE_BYTES: Final = 32
_SOURCE_AT: Final = 12
_IPV4_HEADER: Final = 20
_UDP_HEADER: Final = 8


def make_request() -> bytes:
    """Return one IKE_SA_INIT request whose last octets are the nonce."""
    header = IkeHeader(
        spi_i=bytes(8),
        spi_r=NO_SPI,
        exchange_type=ExchangeType.IKE_SA_INIT,
        flags=HeaderFlag.INITIATOR,
        message_id=0,
    )
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    proposal = parse_proposal(DEFAULT_SUITE.ike, ProtocolId.IKE)
    return encode_message(
        header,
        [
            SaPayload(wire_proposals([proposal])),
            KePayload(Ke.CURVE25519, public),
            NoncePayload(bytes(_NONCE_BYTES)),
        ],
    )


def make_packet(destination: IPv4Address) -> bytearray:
    """Return an IPv4 packet with the request; source, SPI and nonce are filled in for each copy."""
    request = make_request()
    length = _UDP_HEADER + len(request)
    # The kernel fills in the IPv4 length, identification and checksum; a UDP checksum of 0 is none.
    ipv4 = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 17, 0, bytes(4), destination.packed)
    udp = struct.pack("!HHHH", IKE_PORT, IKE_PORT, length, 0)
    return bytearray(ipv4 + udp + request)


def flood(destination: IPv4Address, rate: int, seconds: float) -> dict[str, float]:
    """Send at `rate` per second; what falls behind is caught up with."""
    packet = make_packet(destination)
    spi_at = _IPV4_HEADER + _UDP_HEADER  # IKE begins with it
    address = (str(destination), 0)
    draw = random.Random(1).getrandbits  # noqa: S311 - a forger only needs different numbers
    sent = refused = 0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        print("ready", flush=True)
        began = time.perf_counter()
        while (elapsed := time.perf_counter() - began) < seconds:
            due = int(elapsed * rate) - sent - refused
            if due < _BURST:
                time.sleep((_BURST - due) / rate)
                continue
            for _ in range(due):
                source = _SOURCES + draw(_SOURCE_BITS)
                packet[_SOURCE_AT : _SOURCE_AT + 4] = source.to_bytes(4, "big")
                packet[spi_at : spi_at + 8] = (draw(64) | 1).to_bytes(8, "big")
                packet[-8:] = draw(64).to_bytes(8, "big")
                try:
                    raw.sendto(packet, address)
                except OSError:
                    refused += 1
                else:
                    sent += 1
    return {"sent": sent, "refused": refused, "elapsed_s": time.perf_counter() - began}


def main() -> int:
    """Parse the command line and flood."""
    parser = argparse.ArgumentParser(description="Forge IKE_SA_INIT requests for a measurement.")
    parser.add_argument("destination", type=IPv4Address)
    parser.add_argument("--rate", type=int, default=20_000, help="packets per second")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    print(json.dumps(flood(options.destination, options.rate, options.seconds)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

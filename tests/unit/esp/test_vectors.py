"""Known answers: draft-mcgrew-gcm-test-01, RFC 3602 section 4, RFC 7634 appendix A."""

import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from gateway.esp.errors import PacketDropped
from gateway.esp.outbound import OutboundSa
from gateway.esp.packet import strip_trailer
from gateway.esp.transform import make_open
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.drop_reason import DropReason
from gateway.ipsec.sa import Direction, Mode, Spi
from gateway.ipsec.secret import Secret
from tests.unit.esp.samples import CBC, GCM, association, inbound, ip_packet, outer_header

VECTORS = Path(__file__).parents[2] / "vectors" / "esp"


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


GCM_CASES = load("aes_gcm_mcgrew.json")["cases"]
CBC_CASES = load("aes_cbc_rfc3602.json")["cases"]


@pytest.mark.parametrize("case", GCM_CASES, ids=range(len(GCM_CASES)))
def test_aes_gcm_opens_the_packets_of_the_draft(case: dict[str, Any]) -> None:
    key, salt = bytes.fromhex(case["key"]), bytes.fromhex(case["salt"])
    spi, sequence = int(case["spi"], 16), int(case["sequence"], 16)
    open_esp = make_open(
        association(
            Direction.INBOUND,
            GCM,
            encryption_key=Secret(key + salt),
            key_bits=len(key) * 8,
            spi=Spi(spi),
            esn=case["esn"],
        )
    )
    esp = spi.to_bytes(4) + (sequence & 0xFFFFFFFF).to_bytes(4)
    esp += bytes.fromhex(case["iv"] + case["ciphertext_and_icv"])

    assert open_esp(esp, sequence).hex() == case["plaintext"]
    with pytest.raises(PacketDropped, match="integrity"):
        open_esp(esp[:-1] + bytes((esp[-1] ^ 1,)), sequence)


def cbc_association(case: dict[str, Any], direction: Direction, mode: Mode) -> Any:
    return association(
        direction,
        CBC,
        mode=mode,
        encryption_key=Secret(bytes.fromhex(case["key"])),
        key_bits=128,
        spi=Spi(int(case["esp"][:8], 16)),
    )


def with_hmac(case: dict[str, Any]) -> bytes:
    """Return the RFC's packet, which has no ICV, with the one of HMAC-SHA2-256-128."""
    esp = bytes.fromhex(case["esp"])
    return esp + hmac.digest(CBC.integrity_key, esp, "sha256")[:16]


def mode_of(case: dict[str, Any]) -> Mode:
    return Mode.TUNNEL if case["next_header"] == 4 else Mode.TRANSPORT


@pytest.mark.parametrize("case", CBC_CASES, ids=lambda case: f"case {case['case']}")
def test_aes_cbc_opens_the_packets_of_rfc_3602(case: dict[str, Any]) -> None:
    receiver = make_open(cbc_association(case, Direction.INBOUND, mode_of(case)))

    plaintext = receiver(with_hmac(case), int(case["esp"][8:16], 16))

    assert strip_trailer(plaintext) == (bytes.fromhex(case["payload"]), case["next_header"])


@pytest.mark.parametrize("case", CBC_CASES, ids=lambda case: f"case {case['case']}")
def test_aes_cbc_seals_the_packets_of_rfc_3602_byte_for_byte(case: dict[str, Any]) -> None:
    key, iv = bytes.fromhex(case["key"]), bytes.fromhex(case["esp"][16:48])
    # The IV on the wire is the encryption of what the entropy source gave; so give it what decrypts to it.
    ecb = Cipher(algorithms.AES(key), modes.ECB()).decryptor()
    drawn = ecb.update(iv)
    sa = cbc_association(case, Direction.OUTBOUND, mode_of(case))
    sender = OutboundSa(sa, entropy=lambda size: drawn, next_sequence=int(case["esp"][8:16], 16))
    payload = bytes.fromhex(case["payload"])
    packet = payload if case["next_header"] == 4 else ip_packet(4, payload, protocol=1)

    assert sender.seal_payload(packet, 0.0).payload == with_hmac(case)


def test_chacha20_poly1305_opens_the_packet_of_rfc_7634() -> None:
    case = load("chacha20_poly1305_rfc7634.json")
    receiver = inbound(
        encryption=Encr.CHACHA20_POLY1305,
        encryption_key=Secret(bytes.fromhex(case["key_and_salt"])),
        key_bits=256,
        spi=Spi(0x01020304),
    )

    opened = receiver.open(bytes.fromhex(case["esp"]), outer_header(), 0.0)

    assert opened.packet.hex() == case["payload"]
    assert (opened.next_header, opened.sequence) == (4, 5)


@pytest.mark.parametrize(
    ("integrity", "key", "data", "icv"),
    [
        # RFC 4868 section 2.7.2.1: HMAC-SHA-256-128, -384-192 and -512-256, authentication test case 1.
        pytest.param(
            Integ.HMAC_SHA2_256_128,
            b"\x0b" * 32,
            b"Hi There",
            "198a607eb44bfbc69903a0f1cf2bbdc5",
            id="sha256",
        ),
        pytest.param(
            Integ.HMAC_SHA2_384_192,
            b"\x0b" * 48,
            b"Hi There",
            "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973",
            id="sha384",
        ),
        pytest.param(
            Integ.HMAC_SHA2_512_256,
            b"\x0b" * 64,
            b"Hi There",
            "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8",
            id="sha512",
        ),
    ],
)
def test_hmac_icv_is_that_of_rfc_4868(integrity: Integ, key: bytes, data: bytes, icv: str) -> None:
    # "Hi There" taken as SPI and sequence number of a packet that has nothing else before its ICV.
    sa = association(
        Direction.INBOUND,
        CBC,
        encryption=Encr.NULL,
        encryption_key=Secret(b""),
        key_bits=0,
        integrity=integrity,
        integrity_key=Secret(key),
    )
    open_esp = make_open(sa)

    assert open_esp(data + bytes.fromhex(icv), 0) == b""
    with pytest.raises(PacketDropped) as dropped:
        open_esp(data + bytes(len(icv) // 2), 0)
    assert dropped.value.reason is DropReason.INTEGRITY

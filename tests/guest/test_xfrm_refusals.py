"""What the kernel refuses of an SA, a policy, and the rest, and the words it says so with.

Deliberately bad values: a kernel that takes one does not look at it, which is how an old kernel is told from
a new one.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import cast

import pytest

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.errors import KernelRefusedError
from gateway.datapath.xfrm.netlink import XfrmSocket
from gateway.datapath.xfrm.numbers import (
    EncapsulationType,
    Mode,
    PolicyDirection,
    SaDirection,
    SaExtraFlag,
    SaFlag,
)
from tests.guest.sas import CBC_SHA256, GCM_128, HERE, PEER, ah, esp, host_policy, key

pytestmark = pytest.mark.guest

SPI = 0x1001
NATTED = r.Encapsulation(type=EncapsulationType.ESP_IN_UDP, source_port=4500, destination_port=4500)
INTEGRITY = r.Attributes(integrity=r.AuthAlgorithm(name="hmac(sha256)", key=key(256), icv_bits=128))


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that the kernel refuses, and how."""

    request: Callable[[XfrmSocket], object]
    code: int
    words: str
    attribute: str | None = None


def adding(sa: r.SaInfo, attributes: r.Attributes) -> Callable[[XfrmSocket], object]:
    return lambda xfrm: xfrm.add_sa(sa, attributes)


def aead(name: str, bits: int, icv_bits: int) -> r.Attributes:
    return r.Attributes(aead=r.AeadAlgorithm(name=name, key=key(bits, salt_bytes=4), icv_bits=icv_bits))


OUTBOUND = replace(GCM_128, direction=SaDirection.OUT)
INBOUND = replace(GCM_128, direction=SaDirection.IN)
ESN_32 = r.ReplayStateEsn(window_packets=32, bitmap=(0,))

SA_REFUSALS = {
    "an AEAD nobody knows": Refusal(
        request=adding(esp(SPI), aead("rfc9999(gcm(aes))", 128, 128)),
        code=errno.ENOSYS,
        words="Requested AEAD algorithm not found",
    ),
    "an ICV that the AEAD does not have": Refusal(
        request=adding(esp(SPI), aead("rfc4106(gcm(aes))", 128, 104)),
        code=errno.ENOSYS,
        words="Requested AEAD algorithm not found",
    ),
    "a key that the AEAD does not have": Refusal(
        request=adding(esp(SPI), aead("rfc4106(gcm(aes))", 136, 128)),
        code=errno.EINVAL,
        words="Kernel was unable to initialize cryptographic operations",
    ),
    "a cipher nobody knows": Refusal(
        request=adding(
            esp(SPI), replace(CBC_SHA256, encryption=r.Algorithm(name="cbc(rot13)", key=key(128)))
        ),
        code=errno.ENOSYS,
        words="Requested CRYPT algorithm not found",
    ),
    "a hash nobody knows": Refusal(
        request=adding(
            esp(SPI),
            replace(CBC_SHA256, integrity=r.AuthAlgorithm(name="hmac(crc)", key=key(128), icv_bits=96)),
        ),
        code=errno.ENOSYS,
        words="Requested AUTH_TRUNC algorithm not found",
    ),
    "an ICV longer than the hash": Refusal(
        request=adding(
            esp(SPI),
            replace(CBC_SHA256, integrity=r.AuthAlgorithm(name="hmac(sha256)", key=key(256), icv_bits=384)),
        ),
        code=errno.EINVAL,
        words="Invalid length requested for truncated ICV",
    ),
    "ESP without an algorithm": Refusal(
        request=adding(esp(SPI), r.NO_ATTRIBUTES),
        code=errno.EINVAL,
        words="Missing required attribute for ESP: at least one of AUTH, AUTH_TRUNC, CRYPT, AEAD",
    ),
    "an AEAD beside a hash": Refusal(
        request=adding(esp(SPI), replace(GCM_128, integrity=CBC_SHA256.integrity)),
        code=errno.EINVAL,
        words="Invalid attribute combination for ESP: AEAD can't be used with AUTH, AUTH_TRUNC, CRYPT",
    ),
    "AH with a cipher": Refusal(
        request=adding(ah(SPI), CBC_SHA256),
        code=errno.EINVAL,
        words="Invalid attributes for AH: AEAD, CRYPT, COMP, TFCPAD",
    ),
    "AH through a NAT": Refusal(
        request=adding(ah(SPI), replace(INTEGRITY, encapsulation=NATTED)),
        code=errno.EINVAL,
        words="AH is not compatible with encapsulation",
    ),
    "a protocol that protects nothing": Refusal(
        request=adding(replace(esp(SPI), id=r.SaId(destination=PEER, spi=SPI, protocol=6)), GCM_128),
        code=errno.EINVAL,
        words="Unsupported protocol",
    ),
    "TFC padding in transport mode": Refusal(
        request=adding(esp(SPI, mode=Mode.TRANSPORT), replace(GCM_128, tfc_padding_bytes=1000)),
        code=errno.EINVAL,
        words="TFC padding can only be used in tunnel mode",
    ),
    "IP-TFS, which came with Linux 6.14": Refusal(
        request=adding(esp(SPI, mode=Mode.IPTFS), GCM_128),
        code=errno.EINVAL,
        words="Unsupported mode",
    ),
    "ESN without its state": Refusal(
        request=adding(replace(esp(SPI), flags=SaFlag.ESN), GCM_128),
        code=errno.EINVAL,
        words="Missing required attribute for ESN",
    ),
    "ESN beside the window of old": Refusal(
        request=adding(
            replace(esp(SPI), flags=SaFlag.ESN, replay_window=32), replace(GCM_128, replay_esn=ESN_32)
        ),
        code=errno.EINVAL,
        words="ESN not compatible with legacy replay_window",
    ),
    "ESN without a window": Refusal(
        request=adding(
            replace(esp(SPI), flags=SaFlag.ESN),
            replace(GCM_128, replay_esn=r.ReplayStateEsn(window_packets=0, bitmap=(0,))),
        ),
        code=errno.EINVAL,
        words="ESN replay window must be > 0",
    ),
    "a window wider than its bitmap": Refusal(
        request=adding(
            replace(esp(SPI), flags=SaFlag.ESN),
            replace(GCM_128, replay_esn=r.ReplayStateEsn(window_packets=64, bitmap=(0,))),
        ),
        code=errno.EINVAL,
        words="ESN replay window is too large for the chosen bitmap size",
    ),
    "a direction that is none": Refusal(
        request=adding(esp(SPI), replace(GCM_128, direction=cast("SaDirection", 7))),
        code=errno.ERANGE,
        words="integer out of range",
        attribute="XFRMA_SA_DIR",
    ),
    "a window for an outbound SA": Refusal(
        request=adding(replace(esp(SPI), replay_window=32), OUTBOUND),
        code=errno.EINVAL,
        words="Replay window should be 0 for output SA",
    ),
    "an outbound SA that copies the DSCP inwards": Refusal(
        request=adding(replace(esp(SPI), flags=SaFlag.DECAP_DSCP), OUTBOUND),
        code=errno.EINVAL,
        words="Flag DECAP_DSCP should not be set for output SA",
    ),
    "an inbound SA that does no path MTU discovery": Refusal(
        request=adding(replace(esp(SPI), flags=SaFlag.NOPMTUDISC), INBOUND),
        code=errno.EINVAL,
        words="Flag NOPMTUDISC should not be set for input SA",
    ),
    "an inbound SA whose sequence may wrap": Refusal(
        request=adding(esp(SPI), replace(INBOUND, extra_flags=SaExtraFlag.OSEQ_MAY_WRAP)),
        code=errno.EINVAL,
        words="Flag OSEQ_MAY_WRAP should not be set for input SA",
    ),
    "a CPU without a direction": Refusal(
        request=adding(esp(SPI), replace(GCM_128, cpu=0)),
        code=errno.EINVAL,
        words="SA_PCPU only supported with SA_DIR",
    ),
    "a CPU that cannot be": Refusal(
        request=adding(esp(SPI), replace(OUTBOUND, cpu=10_000)),
        code=errno.ERANGE,
        words="pCPU number too big",
    ),
    "NAT keepalives of an inbound SA": Refusal(
        request=adding(esp(SPI), replace(INBOUND, encapsulation=NATTED, nat_keepalive_s=20)),
        code=errno.EINVAL,
        words="NAT keepalive is only supported for outbound SAs",
    ),
    "NAT keepalives without a NAT": Refusal(
        request=adding(esp(SPI), replace(OUTBOUND, nat_keepalive_s=20)),
        code=errno.EINVAL,
        words="NAT keepalive is only supported for UDP encapsulation",
    ),
    "news of mappings without a NAT": Refusal(
        request=adding(esp(SPI), replace(GCM_128, mapping_threshold_s=10)),
        code=errno.EINVAL,
        words="MTIMER_THRESH attribute can only be set on ENCAP states",
    ),
}

OTHER_REFUSALS = {
    "an SPI range that is empty": Refusal(
        request=lambda xfrm: xfrm.allocate_spi(r.SpiRange(sa=esp(0), lowest=0x200, highest=0x100)),
        code=errno.EINVAL,
        words="Invalid SPI range: min > max",
    ),
    "a policy with too many templates": Refusal(
        request=lambda xfrm: xfrm.add_policy(
            host_policy(HERE, PEER, PolicyDirection.OUT)[0],
            r.Attributes(
                templates=(r.Template(source=HERE, destination=PEER, protocol=50, mode=Mode.TUNNEL),) * 7
            ),
        ),
        code=errno.EINVAL,
        words="Template count must be <= XFRM_MAX_DEPTH (6)",
    ),
    "a policy that asks for a protocol that protects nothing": Refusal(
        request=lambda xfrm: xfrm.add_policy(
            host_policy(HERE, PEER, PolicyDirection.OUT)[0],
            r.Attributes(
                templates=(r.Template(source=HERE, destination=PEER, protocol=6, mode=Mode.TUNNEL),)
            ),
        ),
        code=errno.EINVAL,
        words="Invalid XFRM protocol in template",
    ),
    "a policy for no direction": Refusal(
        request=lambda xfrm: xfrm.add_policy(
            replace(host_policy(HERE, PEER, PolicyDirection.OUT)[0], direction=PolicyDirection.SOCKET_OUT)
        ),
        code=errno.EINVAL,
        words="Invalid policy direction",
    ),
    "counters without anything to set": Refusal(
        request=lambda xfrm: xfrm.set_aevent(r.Aevent(id=esp(SPI).id, source=HERE), r.NO_ATTRIBUTES),
        code=errno.EINVAL,
        words="Missing required attribute for AE",
    ),
    "a migration of nothing": Refusal(
        request=lambda xfrm: xfrm.migrate(
            r.PolicyId(
                direction=PolicyDirection.OUT,
                selector=host_policy(HERE, PEER, PolicyDirection.OUT)[0].selector,
            ),
            r.NO_ATTRIBUTES,
        ),
        code=errno.EINVAL,
        words="Missing required MIGRATE attribute",
    ),
    "a migration of a policy that is not there": Refusal(
        request=lambda xfrm: xfrm.migrate(
            r.PolicyId(
                direction=PolicyDirection.OUT,
                selector=host_policy(HERE, PEER, PolicyDirection.OUT)[0].selector,
            ),
            r.Attributes(
                migrations=(
                    r.Migration(
                        old_source=HERE,
                        old_destination=PEER,
                        new_source=HERE,
                        new_destination=IPv4Address("192.0.2.9"),
                        protocol=50,
                        mode=Mode.TUNNEL,
                    ),
                )
            ),
        ),
        code=errno.ENOENT,
        words="Target policy not found",
    ),
    "a threshold longer than an address": Refusal(
        request=lambda xfrm: xfrm.set_spd_thresholds(
            r.HashThreshold(local_bits=33, remote_bits=32), r.HashThreshold(local_bits=128, remote_bits=128)
        ),
        code=errno.EINVAL,
        words="Invalid hash threshold (must be <= 32 for IPv4)",
    ),
}


@pytest.mark.parametrize("what", [*SA_REFUSALS, *OTHER_REFUSALS])
def test_kernel_refuses_and_says_why(xfrm: XfrmSocket, what: str) -> None:
    expected = (SA_REFUSALS | OTHER_REFUSALS)[what]

    with pytest.raises(KernelRefusedError) as refused:
        expected.request(xfrm)

    said = refused.value
    assert (said.code, said.text, said.attribute) == (expected.code, expected.words, expected.attribute)
    assert xfrm.sas() == ()
    assert xfrm.policies() == ()

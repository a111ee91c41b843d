"""SAs and policies of NETLINK_XFRM for the tests in the guest, with what varies given by name."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Final

from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.numbers import Mode, PolicyAction, PolicyDirection
from gateway.ipsec.secret import Secret

HERE, PEER = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
HERE6, PEER6 = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")
REQID: Final = 7
#: The kernel gives a selector without a family that of the SA.
EVERYTHING: Final = r.Selector(source=IPv4Interface("0.0.0.0/0"), destination=IPv4Interface("0.0.0.0/0"))
EVERYTHING6: Final = r.Selector(source=IPv6Interface("::/0"), destination=IPv6Interface("::/0"))


def key(bits: int, *, salt_bytes: int = 0) -> Secret:
    """Return a key, with the salt behind it where an algorithm has one."""
    return Secret(bytes(i % 251 + 1 for i in range(bits // 8 + salt_bytes)))


GCM_128: Final = r.Attributes(
    aead=r.AeadAlgorithm(name="rfc4106(gcm(aes))", key=key(128, salt_bytes=4), icv_bits=128)
)
CBC_SHA256: Final = r.Attributes(
    encryption=r.Algorithm(name="cbc(aes)", key=key(256)),
    integrity=r.AuthAlgorithm(name="hmac(sha256)", key=key(256), icv_bits=128),
)


def esp(
    spi: int,
    source: IPv4Address | IPv6Address = HERE,
    destination: IPv4Address | IPv6Address = PEER,
    *,
    mode: Mode = Mode.TUNNEL,
) -> r.SaInfo:
    """Return an ESP SA for whatever traffic, without its attributes."""
    identity = r.SaId(destination=destination, spi=spi, protocol=50)
    everything = EVERYTHING if source.version == 4 else EVERYTHING6
    return r.SaInfo(id=identity, source=source, mode=mode, reqid=REQID, selector=everything)


def ah(spi: int, *, mode: Mode = Mode.TUNNEL) -> r.SaInfo:
    """Return an AH SA without its attributes."""
    return replace(esp(spi, mode=mode), id=r.SaId(destination=PEER, spi=spi, protocol=51))


def host_policy(
    source: IPv4Address, destination: IPv4Address, direction: PolicyDirection, *, mode: Mode = Mode.TRANSPORT
) -> tuple[r.PolicyInfo, r.Attributes]:
    """Return the policy that all between two hosts is protected by ESP between them."""
    selector = r.Selector(source=IPv4Interface(source), destination=IPv4Interface(destination))
    template = r.Template(source=source, destination=destination, protocol=50, mode=mode, reqid=REQID)
    policy = r.PolicyInfo(selector=selector, direction=direction, action=PolicyAction.ALLOW)
    return policy, r.Attributes(templates=(template,))

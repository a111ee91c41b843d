"""Short ways to make records, where a test does not care for most of their fields."""

from ipaddress import IPv4Address

from gateway.ike.events import ChildSaId, ChildSaInfo, IkeSaId, IkeSaInfo
from gateway.ike.path import Path
from gateway.ipsec.algorithms import Encr
from gateway.ipsec.identity import parse_identity
from gateway.ipsec.proposal import ProtocolId, parse_proposal
from gateway.ipsec.sa import Direction, SecurityAssociation, Spi
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector

HERE, THERE = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
LOCAL_TS = (TrafficSelector(IPv4Address("10.1.0.0"), IPv4Address("10.1.255.255")),)
REMOTE_TS = (TrafficSelector(IPv4Address("10.2.0.0"), IPv4Address("10.2.255.255")),)


def make_sa(
    spi: int,
    *,
    direction: Direction = Direction.INBOUND,
    key: bytes = b"k" * 36,
    connection: str = "paris",
    child: str = "lan",
    child_sa_id: int = 1,
) -> SecurityAssociation:
    """Return one direction of an AES-GCM SA between 192.0.2.1 (here) and 192.0.2.2."""
    is_inbound = direction is Direction.INBOUND
    return SecurityAssociation(
        spi=Spi(spi),
        direction=direction,
        source=THERE if is_inbound else HERE,
        destination=HERE if is_inbound else THERE,
        encryption=Encr.AES_GCM_16,
        encryption_key=Secret(key),
        key_bits=256,
        local_ts=LOCAL_TS,
        remote_ts=REMOTE_TS,
        connection=connection,
        child=child,
        child_sa_id=child_sa_id,
    )


def make_ike_sa(
    ike_sa_id: int,
    *,
    spi_i: bytes = b"\x01" * 8,
    state: str = "established",
    is_initiator: bool = True,
    connection: str = "paris",
    remote_id: str = "gw-tokyo.example",
    began_at: float = 99.0,
    established_at: float | None = 100.0,
) -> IkeSaInfo:
    """Return what is known about an IKE SA."""
    return IkeSaInfo(
        ike_sa_id=IkeSaId(ike_sa_id),
        connection=connection,
        spi_i=spi_i,
        spi_r=b"\x0f" * 8,
        is_initiator=is_initiator,
        state=state,
        path=Path(HERE, 500, THERE, 500),
        local_id=parse_identity("gw-paris.example"),
        remote_id=parse_identity(remote_id),
        proposal=parse_proposal("aes256gcm16-prfsha384-x25519", ProtocolId.IKE),
        nat_local=False,
        nat_remote=False,
        began_at=began_at,
        established_at=established_at,
        rekey_at=None,
        expires_at=None,
    )


def make_child_sa(
    child_sa_id: int,
    *,
    ike_sa_id: int = 1,
    connection: str = "paris",
    child: str = "lan",
    state: str = "installed",
    spi_in: int = 0x1001,
    spi_out: int = 0x2001,
) -> ChildSaInfo:
    """Return what is known about a Child SA with both directions."""
    names = {"connection": connection, "child": child, "child_sa_id": child_sa_id}
    return ChildSaInfo(
        child_sa_id=ChildSaId(child_sa_id),
        ike_sa_id=IkeSaId(ike_sa_id),
        connection=connection,
        child=child,
        state=state,
        inbound=make_sa(spi_in, **names),  # type: ignore[arg-type]
        outbound=make_sa(spi_out, direction=Direction.OUTBOUND, **names),  # type: ignore[arg-type]
        proposal=parse_proposal("aes256gcm16-x25519", ProtocolId.ESP),
        local_ts=LOCAL_TS,
        remote_ts=REMOTE_TS,
        established_at=100.0,
        rekey_at=None,
        expires_at=None,
    )

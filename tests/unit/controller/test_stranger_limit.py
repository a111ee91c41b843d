"""A stranger's failures are told, but not as often as packets arrive."""

from ipaddress import ip_address

from gateway.controller.stranger_limit import INTERVAL_S, StrangerLimit
from gateway.ike.events import Failure, FailureReason, IkeSaFailed, IkeSaId, IkeSaInfo
from gateway.ike.path import Path


def failed(connection: str = "paris", *, is_initiator: bool = False) -> IkeSaFailed:
    return IkeSaFailed(
        ike_sa=IkeSaInfo(
            ike_sa_id=IkeSaId(1),
            connection=connection,
            spi_i=bytes(8),
            spi_r=bytes(8),
            is_initiator=is_initiator,
            state="half_open",
            path=Path(ip_address("192.0.2.1"), 500, ip_address("192.0.2.2"), 500),
            local_id=None,
            remote_id=None,
            proposal=None,
            nat_local=False,
            nat_remote=False,
            began_at=0.0,
            established_at=None,
            rekey_at=None,
            expires_at=None,
        ),
        failure=Failure(reason=FailureReason.NO_PROPOSAL_CHOSEN, detail="nothing in common"),
    )


def test_a_flood_of_failures_is_told_once_per_interval_and_counted() -> None:
    limit = StrangerLimit()

    told = [limit.allows(failed(), now) for now in (0.0, 0.1, INTERVAL_S - 0.1, INTERVAL_S, INTERVAL_S + 1)]

    assert told == [True, False, False, True, False]
    assert limit.withheld == {"paris": 3}


def test_one_connection_does_not_silence_another() -> None:
    limit = StrangerLimit()

    assert limit.allows(failed("paris"), 0.0)
    assert limit.allows(failed("tokyo"), 0.0)


def test_our_own_failures_are_always_told() -> None:
    limit = StrangerLimit()

    assert all(limit.allows(failed(is_initiator=True), 0.0) for _ in range(3))

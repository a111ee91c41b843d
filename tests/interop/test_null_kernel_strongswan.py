"""strongSwan on the null kernel: what its user-space ESP cannot carry, but IKE can agree on."""

import pytest

from tests.interop.conftest import StartPair
from tests.interop.null_strongswan import NullCharon
from tests.interop.our_gateway import failure_of
from tests.interop.peer import Wanted

each_role = pytest.mark.parametrize("initiator", ["ours", "theirs"])


@pytest.mark.interop(feature="Childless IKE SA (RFC 6023), then a Child SA", peer="strongSwan")
@each_role
def test_an_ike_sa_comes_up_without_a_child_sa(start_pair: StartPair, initiator: str) -> None:
    """RFC 6023: IKE_AUTH without SA and TS payloads; CREATE_CHILD_SA makes the first Child SA."""
    wanted = Wanted(
        our_ike_options=", childless: force" if initiator == "ours" else "",
        their_options=("childless = force",) if initiator == "theirs" else (),
    )
    with start_pair(NullCharon, wanted) as pair:
        pair.bring_up(initiator)

        pair.check_keys()
        log = pair.theirs.log()
        requests = [line for line in log.splitlines() if "IKE_AUTH request 1" in line]
        assert len(requests) == 1
        assert "SA TSi" not in requests[0]
        assert "CREATE_CHILD_SA request 2 [ SA No KE TSi TSr ]" in log


@pytest.mark.interop(feature="Reauthentication", peer="strongSwan", role="ours")
def test_we_reauthenticate_make_before_break(start_pair: StartPair) -> None:
    """RFC 7296 §2.8.3: a new IKE SA with a new Child SA; then the old ones are deleted."""
    options = ", reauth: 3s, over_time: 30s, jitter: 0"
    with start_pair(NullCharon, Wanted(our_ike_options=options)) as pair:
        pair.bring_up("ours")
        ike_spis, spis = pair.ike_spis(), pair.spis()

        pair.wait_until(lambda: bool(pair.ike_spis() - ike_spis), "another IKE SA is there")
        pair.wait_until(lambda: ike_spis.isdisjoint(pair.ike_spis()), "the old IKE SA is gone", 20.0)

        pair.wait_until(lambda: pair.spis().isdisjoint(spis) and pair.same_sas(), "the Child SA is new")
        pair.check_keys()
        # Never without a Child SA: the new SAs were installed before the old ones were deleted.
        entries = [(entry["op"], int(str(entry["spi"]), 16)) for entry in pair.theirs.sa_entries()]
        first_removal = next(i for i, (op, spi) in enumerate(entries) if op == "remove" and spi in spis)
        installed_before = {spi for op, spi in entries[:first_removal] if op == "install"}
        assert len(installed_before - spis) >= 2


@pytest.mark.interop(feature="Reauthentication", peer="strongSwan", role="theirs")
@pytest.mark.parametrize("make_before_break", [False, True], ids=["break-before-make", "make-before-break"])
def test_they_reauthenticate(start_pair: StartPair, *, make_before_break: bool) -> None:
    """It deletes the old IKE SA before it makes the new one, unless told otherwise."""
    setup = ("make_before_break = yes",) if make_before_break else ()
    wanted = Wanted(their_options=("reauth_time = 3s", "rand_time = 0s", "over_time = 30s"))
    with start_pair(NullCharon, wanted, setup=setup) as pair:
        pair.bring_up("theirs")
        ike_spis, spis = pair.ike_spis(), pair.spis()

        pair.wait_until(lambda: bool(pair.ike_spis() - ike_spis), "another IKE SA is there")
        pair.wait_until(lambda: ike_spis.isdisjoint(pair.ike_spis()), "the old IKE SA is gone", 20.0)

        pair.wait_until(
            lambda: bool(pair.spis()) and pair.spis().isdisjoint(spis) and pair.same_sas(), "a new Child SA"
        )
        pair.check_keys()


@pytest.mark.interop(feature="ESN", peer="strongSwan")
@each_role
def test_extended_sequence_numbers_are_agreed_on(start_pair: StartPair, initiator: str) -> None:
    """RFC 4304, RFC 7296 §3.3.2: transform type 5."""
    with start_pair(NullCharon, Wanted(esp=("aes256gcm16-x25519-esn",))) as pair:
        pair.bring_up(initiator)

        pair.check_keys()
        assert {sa.esn for sa in pair.theirs.installed().values()} == {True}
        assert "esn" in pair.ours.child_sas()[0].proposal


@pytest.mark.interop(feature="AH, tunnel mode", peer="strongSwan")
@pytest.mark.parametrize(
    "proposal",
    ["sha256-x25519", *(pytest.param(one, marks=pytest.mark.slow) for one in ("sha1", "sha512", "aescmac"))],
)
@each_role
def test_ah_is_agreed_on(start_pair: StartPair, initiator: str, proposal: str) -> None:
    """RFC 4302."""
    with start_pair(NullCharon, Wanted(ah=(proposal,))) as pair:
        pair.bring_up(initiator)

        assert {sa.protocol for sa in pair.theirs.installed().values()} == {51}
        assert {sa.mode for sa in pair.theirs.installed().values()} == {"tunnel"}
        assert pair.same_sas()
        old = pair.spis()
        assert not failure_of(pair.ours.rekey("net/net"))
        pair.wait_until(lambda: pair.moved_from(old), "the Child SA is another")


@pytest.mark.interop(feature="AH, transport mode", peer="strongSwan")
@each_role
def test_ah_is_agreed_on_in_transport_mode(start_pair: StartPair, initiator: str) -> None:
    """RFC 4302, RFC 7296 §1.3.1."""
    with start_pair(NullCharon, Wanted(ah=("sha256",), mode="transport")) as pair:
        pair.bring_up(initiator)

        installed = pair.theirs.installed().values()
        assert {(sa.protocol, sa.mode) for sa in installed} == {(51, "transport")}
        assert pair.same_sas()


@pytest.mark.interop(feature="Several Child SAs in one IKE SA", peer="strongSwan")
@each_role
def test_several_child_sas_share_an_ike_sa(start_pair: StartPair, initiator: str) -> None:
    """RFC 7296 §1.3.1: one with IKE_AUTH, the others with CREATE_CHILD_SA; all survive an IKE rekey."""
    wanted = Wanted(children=("icmp", "tcp", "udp"))
    with start_pair(NullCharon, wanted) as pair:
        if initiator == "ours":
            assert not failure_of(pair.ours.up("net"))
        else:
            for name in wanted.children:
                pair.theirs.charon.initiate(name)
        pair.wait_until(
            lambda: len(pair.ours.child_sas()) == 3 and pair.same_sas(), "three Child SAs are there"
        )
        pair.check_keys()
        assert len(pair.ours.ike_sas()) == 1
        spis = pair.spis()

        assert not failure_of(pair.ours.rekey("net"))

        assert pair.spis() == spis
        assert not failure_of(pair.ours.rekey("net/tcp"))
        pair.wait_until(lambda: len(pair.theirs.present() & spis) == 4, "one was rekeyed")
        assert pair.theirs.present() <= pair.spis()
        pair.check_keys()


@pytest.mark.interop(feature="UDP encapsulation without a NAT", peer="strongSwan")
@each_role
def test_udp_encapsulation_is_forced(start_pair: StartPair, initiator: str) -> None:
    """RFC 7296 §2.23: whoever wants encapsulation pretends to be behind a NAT."""
    with start_pair(NullCharon, Wanted(our_ike_options=", encapsulation: true")) as pair:
        pair.bring_up(initiator)

        pair.check_keys()
        assert {sa.encapsulation for sa in pair.theirs.installed().values()} == {(4500, 4500)}

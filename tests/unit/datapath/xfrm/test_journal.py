"""What one life of the agent notes for the next."""

import json
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from gateway.datapath import journal as journal_module
from gateway.datapath.xfrm.installation import Whereabouts, whereabouts_of
from gateway.datapath.xfrm.journal import Journal, PolicyNote, SaNote
from gateway.ipsec.interface import TunnelInterface
from gateway.ipsec.lifetime import Lifetime, Limit
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.policy import Action
from gateway.ipsec.sa import SecurityAssociation, UdpEncapsulation
from gateway.ipsec.secret import Secret
from tests.conformance.sas import inbound, outbound, policy

PORTS = UdpEncapsulation(source_port=4500, destination_port=4511)


def without_keys(sa: SecurityAssociation) -> SecurityAssociation:
    return replace(sa, encryption_key=Secret(b""), integrity_key=Secret(b""))


def sa_note(sa: SecurityAssociation, **changes: object) -> SaNote:
    note = SaNote(sa=without_keys(sa), at=whereabouts_of(sa), generation=3, reqid=100, device="")
    return replace(note, **changes)  # type: ignore[arg-type]


RICH_SA = outbound(
    encapsulation=PORTS,
    esn=True,
    copy_df=False,
    tfc_padding_bytes=9,
    lifetime=Lifetime(soft=Limit(seconds=0.5, bytes=2**40), hard=Limit(packets=7)),
    placement=Placement(prefer=(Engine.KERNEL,), require=Engine.NIC_CRYPTO),
    interface_id=42,
)
ELSEWHERE = Whereabouts(
    source=ip_address("192.0.2.1"), destination=ip_address("192.0.2.99"), encapsulation=PORTS
)
SA_NOTES = (sa_note(inbound()), sa_note(RICH_SA, at=ELSEWHERE, device="eth0"))
POLICY_NOTES = (
    PolicyNote(policy=policy(), generation=3, label=70_000),
    PolicyNote(
        policy=policy(
            "v6 and more",
            action=Action.DISCARD,
            local_address=ip_address("2001:db8::1"),
            remote_address=ip_address("2001:db8::2"),
            acquire=False,
            placement=Placement(prefer=(Engine.NIC_PACKET, Engine.KERNEL)),
            interface_id=42,
            interface=TunnelInterface(
                name="ipsec0",
                id=42,
                mtu_bytes=1400,
                addresses=(ip_interface("169.254.9.1/30"),),
                routes=(ip_network("fd00:2::/64"),),
                vrf="red",
            ),
        ),
        generation=0,
        label=80_000,
    ),
)


def opened(path: Path) -> Journal:
    journal = Journal(path)
    journal.open()
    return journal


def test_notes_are_there_in_the_next_life_in_their_order(tmp_path: Path) -> None:
    first = opened(tmp_path / "journal")
    for sa in SA_NOTES:
        first.note_sa(sa)
    for entry in POLICY_NOTES:
        first.note_policy(entry)
    first.close()

    assert Journal(tmp_path / "journal").open() == (SA_NOTES, POLICY_NOTES)


def test_what_is_gone_is_not_there_in_the_next_life(tmp_path: Path) -> None:
    first = opened(tmp_path / "journal")
    first.note_sa(SA_NOTES[0])
    first.note_policy(POLICY_NOTES[0])
    first.forget_sa(SA_NOTES[0].sa.sa_id)
    first.forget_policy("paris/lan")
    first.close()

    assert Journal(tmp_path / "journal").open() == ((), ())


def test_last_word_about_a_name_holds(tmp_path: Path) -> None:
    first = opened(tmp_path / "journal")
    first.note_sa(SA_NOTES[0])
    first.note_sa(replace(SA_NOTES[0], generation=9))
    first.close()

    ((note,), _) = Journal(tmp_path / "journal").open()
    assert note.generation == 9


def test_every_line_is_written_at_once(tmp_path: Path) -> None:
    first = opened(tmp_path / "journal")

    first.note_sa(SA_NOTES[0])

    # Not closed: the process was killed.
    assert Journal(tmp_path / "journal").open()[0] == SA_NOTES[:1]


SENSELESS = {
    "nothing": b"",
    "no JSON": b"nonsense",
    "not three": b"[1, 2]",
    "no list": b"5",
    "cut short": b'["sa"',
    "not UTF-8": b"\xff\xfe",
    "an SA without most": b'["sa", "x", {"spi": 1}]',
    "an SA that is a number": b'["sa", "x", 5]',
    "a policy of other types": b'["policy", "p", {"name": 5}]',
    "a number as a selector": b'["policy", "p", {"name": "p", "action": "protect", "local_ts": [5]}]',
}


@pytest.mark.parametrize("line", SENSELESS.values(), ids=SENSELESS)
def test_line_that_makes_no_sense_is_passed_over(tmp_path: Path, line: bytes) -> None:
    first = opened(tmp_path / "journal")
    first.note_sa(SA_NOTES[0])
    first.close()
    with (tmp_path / "journal").open("ab") as file:
        file.write(line)

    assert Journal(tmp_path / "journal").open() == (SA_NOTES[:1], ())


def test_keys_are_never_written(tmp_path: Path) -> None:
    key = bytes(range(36))
    first = opened(tmp_path / "journal")

    first.note_sa(replace(SA_NOTES[0], sa=inbound(encryption_key=Secret(key))))

    (line,) = (tmp_path / "journal").read_text().splitlines()
    assert "key" not in {name for name in json.loads(line)[2] if name != "key_bits"}
    assert key.hex() not in line


def test_file_does_not_grow_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_SPARE_LINES", 10)
    first = opened(tmp_path / "journal")

    for generation in range(100):
        first.note_sa(replace(SA_NOTES[0], generation=generation))

    assert len((tmp_path / "journal").read_text().splitlines()) <= 13
    first.close()
    ((note,), _) = Journal(tmp_path / "journal").open()
    assert note.generation == 99


def test_what_is_said_again_is_not_written_again(tmp_path: Path) -> None:
    first = opened(tmp_path / "journal")

    for _ in range(3):
        first.note_sa(SA_NOTES[0])

    assert len((tmp_path / "journal").read_text().splitlines()) == 1


def test_without_a_path_nothing_is_noted_and_nothing_fails() -> None:
    journal = Journal(None)

    assert journal.open() == ((), ())
    journal.note_sa(SA_NOTES[0])
    journal.forget_policy("x")
    journal.remove()
    journal.close()


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    opened(tmp_path / "journal")

    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600

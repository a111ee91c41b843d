"""The configuration file: what is good is read, what is wrong is named with its place, all at once."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.config_error import ConfigError, Problem
from gateway.api.config_file import load_config, parse_config
from gateway.api.convert_connection import write_connection
from gateway.api.plain import to_yaml
from gateway.ipsec.connection import (
    Child,
    Childless,
    Connection,
    Fragmentation,
    IkeOptions,
    LossAction,
    Side,
    Start,
    Unique,
)
from gateway.ipsec.identity import parse_identity
from gateway.ipsec.lifetime import Limit
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.policy import Action
from gateway.ipsec.proposal import Proposal, ProtocolId, default_proposals, parse_proposal
from gateway.ipsec.sa import Mode
from gateway.ipsec.secret import Secret
from gateway.ipsec.selectors import TrafficSelector

HERE = Path("/nowhere")

MINIMAL = """\
connections:
- name: a
  remote: {address: 192.0.2.2, auth: {psk: {value: secret}}}
  children:
  - name: lan
"""

EVERYTHING = """\
connections:
- name: paris-tokyo
  local:
    addresses: [192.0.2.1, "2001:db8::1"]
    id: gw-paris.example
    auth: {psk: {value: 0x00ff}}
  remote:
    addresses: [192.0.2.2, GW-tokyo.example]
    id: "%any"
    auth: {psk: {value: 0sAP8=}}
  ike:
    proposals: [aes256gcm16-prfsha384-x25519, aes256-sha256-modp2048]
    rekey: 8h
    over_time: 10m
    jitter: 0.25
    dpd_delay: 0s
    retransmit_timeout: 500ms
    retransmit_base: 1.5
    retransmit_tries: 7
    encapsulation: true
    fragmentation: no
    fragment_size: 576
    unique: reject
    ike_sas_per_peer: 3
    childless: force
    reauth: 12h
  allow_weak: [modp1024]
  children:
  - name: lan
    local_ts: [192.0.2.0/24]
    remote_ts: ["10.2.0.0/16[tcp/443]", 10.3.0.1-10.3.0.9]
    mode: transport
    action: protect
    esp: {proposals: [aes256gcm16-x25519]}
    start: on_traffic
    rekey: 0s
    rekey_bytes: 1000000000000
    rekey_packets: 4000000000
    over_fraction: 0.5
    jitter: 0
    replay_window: 4096
    copy_dscp: false
    copy_df: false
    priority: 10
    placement: {require: xdp}
    dpd_action: restart
    close_action: clear
  - name: ospf
    action: bypass
"""


def connection(text: str) -> Connection:
    (wanted,) = parse_config(text, "gw.yaml", HERE).connections
    return wanted.connection


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "gw.yaml", HERE)
    return str(caught.value).splitlines()


# --- what is good -------------------------------------------------------------------------------


def test_every_field_reaches_its_record() -> None:
    assert connection(EVERYTHING) == Connection(
        name="paris-tokyo",
        local=Side(
            addresses=tuple(TrafficSelector.parse(a).start for a in ("192.0.2.1", "2001:db8::1")),
            id=parse_identity("gw-paris.example"),
        ),
        remote=Side(
            addresses=(TrafficSelector.parse("192.0.2.2").start,),
            names=("gw-tokyo.example",),
            id=parse_identity("%any"),
        ),
        ike=IkeOptions(
            proposals=(
                parse_proposal("aes256gcm16-prfsha384-x25519", ProtocolId.IKE),
                parse_proposal("aes256-sha256-modp2048", ProtocolId.IKE),
            ),
            rekey_s=28800.0,
            over_s=600.0,
            jitter=0.25,
            dpd_delay_s=0.0,
            retransmit_timeout_s=0.5,
            retransmit_base=1.5,
            retransmit_tries=7,
            encapsulation=True,
            fragmentation=Fragmentation.NO,
            fragment_packet_bytes=576,
            unique=Unique.REJECT,
            ike_sas_per_peer=3,
            childless=Childless.FORCE,
            reauth_s=43200.0,
        ),
        children=(
            Child(
                name="lan",
                local_ts=(TrafficSelector.parse("192.0.2.0/24"),),
                remote_ts=(
                    TrafficSelector.parse("10.2.0.0/16[tcp/443]"),
                    TrafficSelector.parse("10.3.0.1-10.3.0.9"),
                ),
                mode=Mode.TRANSPORT,
                action=Action.PROTECT,
                proposals=(parse_proposal("aes256gcm16-x25519", ProtocolId.ESP),),
                start=Start.ON_TRAFFIC,
                rekey=Limit(seconds=None, bytes=10**12, packets=4 * 10**9),
                over=0.5,
                jitter=0.0,
                replay_window_packets=4096,
                copy_dscp=False,
                copy_df=False,
                priority=10,
                placement=Placement(prefer=(Engine.XDP,), require=Engine.XDP),
                dpd_action=LossAction.RESTART,
                close_action=LossAction.CLEAR,
            ),
            Child(name="ospf", action=Action.BYPASS),
        ),
        allow_weak=("modp1024",),
    )


def test_what_is_left_out_has_the_defaults_of_the_records() -> None:
    assert connection(MINIMAL) == Connection(
        name="a",
        local=Side(),
        remote=Side(addresses=(TrafficSelector.parse("192.0.2.2").start,)),
        children=(Child(name="lan"),),
    )


@pytest.mark.parametrize(
    ("ah", "proposals"),
    [
        ("{}", default_proposals(ProtocolId.AH)),
        (
            "{proposals: [sha256-x25519, aes128gmac]}",
            tuple(parse_proposal(words, ProtocolId.AH) for words in ("sha256-x25519", "aes128gmac")),
        ),
    ],
)
def test_ah_is_read_and_written_back(ah: str, proposals: tuple[Proposal, ...]) -> None:
    read = connection(MINIMAL + f"    ah: {ah}\n")

    assert read.children[0].protocol is ProtocolId.AH
    assert read.children[0].proposals == proposals
    written = write_connection(read, psk_is_set=True)
    assert list(written.children[0].ah.proposals) == [str(proposal) for proposal in proposals]
    assert not written.children[0].HasField("esp")


def test_suites_that_hide_nothing_are_taken_by_name_only() -> None:
    text = MINIMAL + "    esp: {proposals: [null-sha256, aes128gmac]}\n"
    with pytest.raises(ConfigError, match="authenticates but does not encrypt"):
        connection(text)

    read = connection(text.replace("  children:", "  allow_weak: ['null', aes128gmac]\n  children:"))

    assert [str(proposal) for proposal in read.children[0].proposals] == ["null-sha256", "aes128gmac"]


def test_psks_are_resolved_and_equal_however_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "paris.psk").write_text("a\x7fb\n")
    (tmp_path / "paris.psk").chmod(0o600)
    (tmp_path / "credential").write_bytes(b"a\x7fb")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("GW_PSK", "0x617f62")

    for source in ("file: paris.psk", "env: GW_PSK", "credential: credential", "value: 0x617f62"):
        (tmp_path / "gw.yaml").write_text(
            MINIMAL.replace("value: secret", source).replace(
                "  children", "  local: {auth: {psk: {env: GW_PSK}}}\n  children"
            )
        )

        loaded = load_config(tmp_path / "gw.yaml")

        assert loaded.connections[0].psk == Secret(b"a\x7fb")
        assert loaded.message.connections[0].remote.auth.psk.value == "0x617f62"


@pytest.mark.parametrize("text", [MINIMAL, EVERYTHING])
def test_what_is_written_is_read_back(text: str) -> None:
    first = connection(text)
    message = write_connection(first, psk_is_set=False)
    message.remote.auth.psk.value = "secret"

    again = "connections:\n- " + to_yaml(message).replace("\n", "\n  ")

    assert connection(again) == first


def test_without_children_there_is_a_childless_ike_sa_where_that_is_forced() -> None:
    text = MINIMAL[: MINIMAL.index("  children")] + "  ike: {childless: force}\n"

    assert connection(text).children == ()


# --- what is wrong ------------------------------------------------------------------------------


def with_connection(line: str) -> str:
    """Return the minimal configuration with a line 6 in its connection."""
    return MINIMAL + f"  {line}\n"


def with_child(line: str) -> str:
    """Return the minimal configuration with a line 6 in its child."""
    return MINIMAL + f"    {line}\n"


CHILD_KEYS = (
    "name, local_ts, remote_ts, mode, action, esp, start, rekey, rekey_bytes, rekey_packets, over_fraction, "
    "jitter, replay_window, copy_dscp, copy_df, priority, placement, ah, dpd_action, close_action, "
    "interface, per_cpu_sas, mark_out, mark_in, mark_in_sa, set_mark_out, set_mark_in"
)
CHILD = "connections[0].children[0]"

BAD = {
    "empty file": ("", ["1:1: is empty; expected `connections:` with a list"]),
    "only a comment": ("# nothing\n", ["1:1: is empty; expected `connections:` with a list"]),
    "a list at the top": ("- a\n", ["1:1: is a list; expected a mapping with connections"]),
    "text at the top": ("hello\n", ["1:1: is a single value; expected a mapping with connections"]),
    "no value": ("connections:\n", ["1:13: connections: has no value; give one or leave the key out"]),
    "unclosed bracket": (
        "connections: [\n",
        ["2:1: is not YAML: while parsing a flow node expected the node content, but found '<stream end>'"],
    ),
    "tab": (
        "connections:\n\t- a\n",
        [
            "2:1: is not YAML: while scanning for the next token found character '\\t' that cannot start any"
            " token"
        ],
    ),
    "forbidden character": ("connections: \x07\n", ["1:14: has a character that YAML forbids: U+0007"]),
    "two documents": (
        MINIMAL + "---\n" + MINIMAL,
        ["6:1: is not YAML: expected a single document in the stream but found another document"],
    ),
    "anchors and aliases": (
        with_child("local_ts: &x [10.0.0.0/8]") + "    remote_ts: *x\n",
        [
            "6:15: anchors are not understood here; leave it out",
            "7:16: aliases are not understood here; write the value out",
            f"7:16: {CHILD}.remote_ts: has no value; give one or leave the key out",
        ],
    ),
    "merge key": (
        with_child("<<: {mode: tunnel}"),
        [f"6:5: {CHILD}.<<: unknown key; expected one of {CHILD_KEYS}"],
    ),
    "tag": (
        with_child("mode: !!python/name:os.system tunnel"),
        ["6:11: tags like tag:yaml.org,2002:python/name:os.system are not understood here; leave it out"],
    ),
    "too deep": (
        "connections: " + "[" * 40 + "]" * 40 + "\n",
        ["1:45: is not YAML: more than 32 levels deep"],
    ),
    "key that is a list": (with_child("[a, b]: c"), [f"6:5: {CHILD}: has a list as a key; expected a name"]),
    "unknown key, near": (
        with_child("local_tss: [10.0.0.0/8]"),
        [f"6:5: {CHILD}.local_tss: unknown key; did you mean local_ts?"],
    ),
    "unknown key, far": (
        with_child("colour: red"),
        [f"6:5: {CHILD}.colour: unknown key; expected one of {CHILD_KEYS}"],
    ),
    "what only answers have": (
        MINIMAL.replace("value: secret", "is_set: true"),
        [
            "3:45: connections[0].remote.auth.psk.is_set: unknown key; expected one of value, file, env,"
            " credential"
        ],
    ),
    "misspelt required key": (
        MINIMAL.replace("name: a", "nmae: a"),
        ["2:3: connections[0].nmae: unknown key; did you mean name?"],
    ),
    "duplicate key": (
        with_child("mode: tunnel") + "    mode: transport\n",
        [f"7:5: {CHILD}.mode: is given twice, first in line 6; leave one out"],
    ),
    "missing required": (
        "connections:\n- remote: {address: 192.0.2.2}\n",
        [
            "2:3: connections[0].children: is required: at least one child",
            "2:3: connections[0].local.auth: is required: auth: {psk: {file: PATH}}, here or on the remote"
            " side",
            "2:3: connections[0].name: is required: letters, digits, '.', '_' and '-'",
        ],
    ),
    "bad name": (
        MINIMAL.replace("name: a", "name: a/b"),
        [
            "2:9: connections[0].name: 'a/b' is not a name: letters, digits, '.', '_' and '-', a letter or"
            " digit first"
        ],
    ),
    "the same name twice": (
        MINIMAL + "  - name: lan\n",
        ["6:11: connections[0].children[1].name: 'lan' is already the name of connections[0].children[0]"],
    ),
    "list wanted": (
        with_child("local_ts: 10.1.0.0/16"),
        [f"6:15: {CHILD}.local_ts: is a single value; expected a list, as [a, b], also of a single one"],
    ),
    "mapping wanted, and the text is not repeated": (
        MINIMAL.replace("psk: {value: secret}", "psk: secret"),
        [
            "3:44: connections[0].remote.auth.psk: is a single value; expected a mapping with value, file,"
            " env, credential"
        ],
    ),
    "value wanted": (
        with_child("mode: [tunnel]"),
        [f"6:11: {CHILD}.mode: is a list; expected one of tunnel, transport"],
    ),
    "bad prefix": (
        with_child("local_ts: [10.0.0.0/8, 10.1.0.0/33]"),
        [
            f"6:37: {CHILD}.local_ts[1]: '10.1.0.0/33' is not a prefix; a length of 0 to 32 (IPv4) or 0 to"
            " 128 (IPv6) follows the '/'"
        ],
    ),
    "bad protocol in quotes": (
        with_child('local_ts: ["10.1.0.0/16[tpc/443]"]'),
        [
            f"6:29: {CHILD}.local_ts[0]: 'tpc' is not an IP protocol: a number up to 255 or one of icmp,"
            " igmp, ipip, tcp, udp, dccp, ipv6, gre, esp, ah, icmpv6, ospf, pim, vrrp, l2tp, sctp, mh,"
            " udplite"
        ],
    ),
    "bad word of a proposal": (
        with_connection("ike: {proposals: [aes256gcm16-prfsha384-x25591]}"),
        ["6:43: connections[0].ike.proposals[0]: 'x25591' is not an algorithm; did you mean x25519?"],
    ),
    "incomplete proposal": (
        with_connection("ike: {proposals: [aes256gcm16-prfsha384]}"),
        [
            "6:42: connections[0].ike.proposals[0]: no key exchange method in this IKE proposal; add one, for"
            " example -x25519"
        ],
    ),
    "bad duration": (
        with_child("rekey: 60"),
        [f"6:12: {CHILD}.rekey: '60' has no unit; write 60s, 60m or 60h"],
    ),
    "bad enum": (
        with_child("start: on-traffic"),
        [
            f"6:12: {CHILD}.start: 'on-traffic' is unknown; did you mean on_traffic? expected one of none,"
            " start, on_traffic"
        ],
    ),
    "upper-case enum": (
        with_child("mode: MODE_TUNNEL"),
        [f"6:11: {CHILD}.mode: 'MODE_TUNNEL' is unknown; expected one of tunnel, transport"],
    ),
    "bad boolean": (
        with_child("copy_dscp: yes"),
        [f"6:16: {CHILD}.copy_dscp: 'yes' is neither true nor false"],
    ),
    "bad number": (
        with_child("priority: 1e3"),
        [f"6:15: {CHILD}.priority: '1e3' is not a whole number, as 1000"],
    ),
    "number out of range": (
        with_child("priority: 4294967296"),
        [f"6:15: {CHILD}.priority: 4294967296 is more than 4294967295"],
    ),
    "window out of range": (
        with_child("replay_window: 32"),
        [f"6:20: {CHILD}.replay_window: 32 is not between 64 and 4096"],
    ),
    "fraction that is none": (
        with_child("jitter: nan"),
        [f"6:13: {CHILD}.jitter: 'nan' is not a number, as 0.1"],
    ),
    # The core would refuse jitter that may take a whole lifetime off, while a peer waits for its answer.
    "fraction that leaves nothing": (
        with_child("jitter: 1"),
        [f"6:13: {CHILD}.jitter: 1 is not a fraction from 0 to less than 1"],
    ),
    "fraction out of range": (
        with_connection(
            "ike: {jitter: 1.5, retransmit_base: 0.5, retransmit_tries: 0, retransmit_timeout: 0s}"
        ),
        [
            "6:17: connections[0].ike.jitter: 1.5 is not a fraction from 0 to less than 1",
            "6:39: connections[0].ike.retransmit_base: 0.5 is not between 1 and 10",
            "6:62: connections[0].ike.retransmit_tries: 0 is not between 1 and 100",
            "6:85: connections[0].ike.retransmit_timeout: is 0s; at least some milliseconds are needed",
        ],
    ),
    "prefer and require": (
        with_child("placement: {prefer: [kernel, nic, kernel], require: xdp}"),
        [
            f"6:16: {CHILD}.placement: has both prefer and require; give one of them",
            f"6:34: {CHILD}.placement.prefer[1]: 'nic' is unknown; expected one of nic_packet, nic_crypto,"
            " engine, kernel, xdp, software",
        ],
    ),
    "an engine named twice": (
        with_child("placement: {prefer: [kernel, xdp, kernel]}"),
        [f"6:39: {CHILD}.placement.prefer[2]: kernel is named twice"],
    ),
    "start of a bypass": (
        with_child("action: bypass") + "    start: start\n",
        [f"7:12: {CHILD}.start: is for action protect, not bypass; leave it out"],
    ),
    "families that never meet": (
        with_connection("local: {address: '2001:db8::1'}")
        .replace("- name: lan", "- {name: lan, local_ts: [10.0.0.0/8], remote_ts: ['::/0']}"),
        [
            "3:11: connections[0].remote: has only IPv4 addresses, but local has only IPv6 ones",
            "5:52: connections[0].children[0].remote_ts: has only IPv6 selectors, but local_ts has only IPv4"
            " ones",
        ],
    ),
    "address and addresses": (
        with_connection("local: {address: 192.0.2.1, addresses: [192.0.2.1x]}"),
        [
            "6:42: connections[0].local.addresses: is given beside address; give one of them",
            "6:43: connections[0].local.addresses[0]: '192.0.2.1x' is not an IPv4 or IPv6 address, as"
            " 192.0.2.1 or 2001:db8::1",
        ],
    ),
    "a name of ours": (
        with_connection("local: {address: gw.example}"),
        [
            "6:20: connections[0].local.address: 'gw.example' is not an IPv4 or IPv6 address, as 192.0.2.1 or"
            " 2001:db8::1"
        ],
    ),
    "neither address nor name": (
        MINIMAL.replace("192.0.2.2", "192.0.2.2.5"),
        [
            "3:21: connections[0].remote.address: '192.0.2.2.5' is not an IPv4 or IPv6 address, as 192.0.2.1"
            " or 2001:db8::1"
        ],
    ),
    "fragmentation that cannot be": (
        with_connection("ike: {fragmentation: force, fragment_size: 255}"),
        [
            "6:24: connections[0].ike.fragmentation: 'force' is unknown; expected one of yes, no",
            "6:46: connections[0].ike.fragment_size: 255 is not between 256 and 65535",
        ],
    ),
    "no such choice": (
        with_connection("ike: {unique: keep, childless: yes, ike_sas_per_peer: 0, reauth: soon}"),
        [
            "6:17: connections[0].ike.unique: 'keep' is unknown; "
            "expected one of replace, reject, allow, never",
            "6:34: connections[0].ike.childless: 'yes' is unknown; expected one of allow, force, never",
            "6:57: connections[0].ike.ike_sas_per_peer: 0 is not between 1 and 10000",
            "6:68: connections[0].ike.reauth: 'soon' is not a duration, as 90s, 15m, 1h or 1h30m",
        ],
    ),
    "more selectors than fit": (
        with_child(f"local_ts: [{', '.join(f'10.0.{n}.0/24' for n in range(256))}]"),
        [f"6:15: {CHILD}.local_ts: has 256 selectors; at most 255 fit in a payload"],
    ),
    "loss of what cannot be lost": (
        with_child("action: bypass\n    dpd_action: restart"),
        [f"7:17: {CHILD}.dpd_action: is for action protect, not bypass; leave it out"],
    ),
    "AH and ESP at once": (
        with_child("ah: {proposals: [sha256]}\n    esp: {proposals: [aes256gcm16]}"),
        [f"6:9: {CHILD}.ah: is there beside esp; give one of them"],
    ),
    "AH that encrypts": (
        with_child("ah: {proposals: [aes256gcm16]}"),
        [
            f"6:22: {CHILD}.ah.proposals[0]: aes256gcm16: AH does not encrypt, take the encryption algorithm"
            " out"
        ],
    ),
    "AH in UDP": (
        with_child("ah: {}").replace("  remote:", "  ike: {encapsulation: true}\n  remote:"),
        [f"7:9: {CHILD}.ah: cannot be encapsulated in UDP; use esp, or leave encapsulation out"],
    ),
    "no host's address": (
        with_connection("local: {address: 0.0.0.0}"),
        ["6:20: connections[0].local.address: 0.0.0.0 is no host's address; leave the address out for any"],
    ),
    "any as our own identity": (
        with_connection("local: {id: '%any'}"),
        [
            "6:16: connections[0].local.id: is what we say we are, so it cannot be %any; leave it out for our"
            " address"
        ],
    ),
    "allowing what is no algorithm": (
        with_connection("allow_weak: [rot13]"),
        ["6:16: connections[0].allow_weak[0]: 'rot13' is no algorithm, as 3des or modp1024"],
    ),
    "missing secret file": (
        MINIMAL.replace("value: secret", "file: paris.psk"),
        [
            "3:51: connections[0].remote.auth.psk.file: the secret file /nowhere/paris.psk does not exist;"
            " write the key there, mode 0600"
        ],
    ),
    "secret file of nobody": (
        MINIMAL.replace("value: secret", "file: ~no-such-user/paris.psk"),
        [
            "3:51: connections[0].remote.auth.psk.file: ~no-such-user/paris.psk begins with the home"
            " directory of a user there is not"
        ],
    ),
    "missing environment variable": (
        MINIMAL.replace("value: secret", "env: GW_NO_SUCH_VARIABLE"),
        [
            "3:50: connections[0].remote.auth.psk.env: the environment variable GW_NO_SUCH_VARIABLE is not"
            " set; set it where the gateway is started"
        ],
    ),
    "two sources": (
        MINIMAL.replace("value: secret", "value: secret, env: GW"),
        [
            "3:60: connections[0].remote.auth.psk.env: is given beside value; give one of value, file, env,"
            " credential"
        ],
    ),
    "no source": (
        MINIMAL.replace("value: secret", ""),
        ["3:44: connections[0].remote.auth.psk: is required to name one of file, env, credential or value"],
    ),
    "bad hexadecimal key, not repeated": (
        MINIMAL.replace("value: secret", "value: 0xhunter2"),
        [
            "3:52: connections[0].remote.auth.psk.value: the secret of {value: ...} begins with 0x but is not"
            " an even number of hex digits"
        ],
    ),
    "two keys": (
        with_connection("local: {auth: {psk: {value: other}}}"),
        ["3:44: connections[0].remote.auth.psk: is not the key of the local side; both sides share one key"],
    ),
    "surrogate": (
        MINIMAL.replace("name: a", 'name: "\\ud800"'),
        ["2:9: connections[0].name: has a control character or a lone surrogate; take it out"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD.keys())
def test_what_is_wrong_is_named_with_its_place(text: str, expected: list[str]) -> None:
    assert problems(text) == [f"gw.yaml:{line}" for line in expected]


def test_everything_wrong_is_told_at_once() -> None:
    text = """\
connections:
- name: paris
  remote: {address: 192.0.2.300, auth: {psk: {file: nope.psk}}}
  ike: {proposals: [aes256gcm16-prfsha384-x25591], rekey: 4}
  children:
  - {name: lan, local_ts: [10.1.0.0/33], modus: tunnel, start: always}
- name: paris
"""

    lines = problems(text)

    places = [re.match(r"gw\.yaml:(\d+:\d+): (\S+): ", line) for line in lines]
    assert [place and place.groups() for place in places] == [
        ("3:21", "connections[0].remote.address"),
        ("3:53", "connections[0].remote.auth.psk.file"),
        ("4:43", "connections[0].ike.proposals[0]"),
        ("4:59", "connections[0].ike.rekey"),
        ("6:37", "connections[0].children[0].local_ts[0]"),
        ("6:42", "connections[0].children[0].modus"),
        ("6:64", "connections[0].children[0].start"),
        ("7:3", "connections[1].children"),
        ("7:3", "connections[1].local.auth"),
        ("7:9", "connections[1].name"),
    ]


def test_a_file_that_cannot_be_read_says_what_is_wanted(tmp_path: Path) -> None:
    missing, binary = tmp_path / "gw.yaml", tmp_path / "binary.yaml"
    binary.write_bytes(b"name: \xff\n")

    with pytest.raises(ConfigError) as caught:
        load_config(missing)
    assert str(caught.value) == (
        f"{missing}: cannot be read: No such file or directory; give the path of a YAML file with connections"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(binary)
    assert str(caught.value) == f"{binary}: is not UTF-8 text (byte 6)"


def test_no_error_repeats_a_key() -> None:
    key = "hunter2-hunter2"
    for text in (
        MINIMAL.replace("{value: secret}", key),
        MINIMAL.replace("{value: secret}", f"[{key}]"),
        MINIMAL.replace("{value: secret}", f"{{value: [{key}]}}"),
        MINIMAL.replace("{value: secret}", f"{{value: 0x{key}}}"),
        MINIMAL.replace("{value: secret}", f'{{value: "\\a{key}"}}'),
        with_connection(f"local: {{auth: {{psk: {{value: {key}}}}}}}"),
    ):
        assert key not in "\n".join(problems(text))


def found(text: str) -> tuple[Problem, ...]:
    try:
        parse_config(text, "gw.yaml", HERE)
    except ConfigError as error:
        return error.problems
    return ()


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_explained(text: str) -> None:
    """Or it is a configuration, and the same when it is written again: `connections: []` is tried too."""
    if not found(text):
        read = parse_config(text, "gw.yaml", HERE)
        assert parse_config(to_yaml(read.message), "gw.yaml", HERE).message == read.message


@settings(max_examples=400, deadline=None)
@given(
    st.integers(0, len(EVERYTHING)),
    st.integers(0, 30),
    st.text("abc019 -:,.[]{}'\"\n\t#&*!|>%@`~\\/", max_size=8),
)
def test_any_damage_is_read_or_explained(start: int, length: int, inserted: str) -> None:
    text = EVERYTHING[:start] + inserted + EVERYTHING[start + length :]

    lines = text.count("\n") + 2
    assert all(1 <= problem.line <= lines and problem.column >= 1 for problem in found(text))


def test_a_selector_with_a_port_in_a_list_in_brackets_wants_quotes() -> None:
    (problem,) = problems(MINIMAL + "    local_ts: [10.1.0.0/16[tcp/443]]\n")

    assert problem.startswith("gw.yaml:6:27: is not YAML: ")
    assert problem.endswith("write a selector with a port in quotes inside [...]: ['10.1.0.0/16[tcp/443]']")


@pytest.mark.parametrize("identity", ["%any", "@gw", "*.example"])
def test_a_value_that_yaml_reads_otherwise_wants_quotes(identity: str) -> None:
    text = MINIMAL.replace("address: 192.0.2.2", f"id: {identity}, address: 192.0.2.2")

    (problem,) = problems(text)

    assert problem.startswith("gw.yaml:3:1")
    assert problem.endswith("write a value that begins with %, @ or * in quotes: '%any'")
    assert connection(text.replace(identity, f"'{identity}'")).remote.id == parse_identity(identity)


def test_transport_mode_is_for_our_own_packets_only() -> None:
    def text(net: str, local: str = "  local: {address: 192.0.2.1}\n") -> str:
        child = f"    mode: transport\n    local_ts: [{net}]\n    remote_ts: [10.2.0.0/16]\n"
        return MINIMAL.replace("  remote:", local + "  remote:") + child

    (problem,) = problems(text("10.1.0.0/16"))

    assert problem == (
        "gw.yaml:8:15: connections[0].children[0].local_ts: mode transport is for what 192.0.2.1 itself "
        "sends, which is not in it; leave it out, or use mode tunnel"
    )
    assert connection(text("192.0.2.0/24")).children[0].mode is Mode.TRANSPORT
    # Without an address of ours, the kernel chooses it later.
    assert connection(text("10.1.0.0/16", local="")).children[0].mode is Mode.TRANSPORT

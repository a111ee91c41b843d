"""Where an SA lands and why not elsewhere: the pure choice, against what the profiles say of real drivers."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from gateway.datapath.ability import Ability, Closed, backend_abilities, nic_abilities
from gateway.datapath.backend import Capabilities, DatapathError, ErrorReason, first_wanted
from gateway.datapath.select import CHECKS, Link, Surroundings, choose, first_engines
from gateway.ipsec.algorithms import Encr, Integ
from gateway.ipsec.mark import Mark
from gateway.ipsec.placement import (
    DEFAULT_PREFERENCE,
    Engine,
    Placement,
    PlacementReason,
    PlacementRefusal,
    in_words,
)
from gateway.ipsec.sa import IpsecProtocol, Mode, SecurityAssociation, UdpEncapsulation
from gateway.ipsec.selectors import TrafficSelector
from tests.conformance.sas import OURS, inbound, outbound
from tests.fakes.machines import KERNEL, SOFTWARE, nic, surroundings_of_nics

NIC_PACKET, NIC_CRYPTO = Engine.NIC_PACKET, Engine.NIC_CRYPTO
UDP = UdpEncapsulation(source_port=4500, destination_port=4500)
#: What mlx5 takes in packet mode.
PLAIN: dict[str, Any] = {"replay_window_packets": 256}


def here(driver: str, release: str = "6.18.1", **changes: Any) -> Surroundings:
    """Return a machine with one NIC of that driver, which has our address, and every backend."""
    abilities = (
        *nic_abilities(KERNEL, [nic("eth0", driver, **changes)], surroundings_of_nics(release)),
        *backend_abilities(KERNEL),
        *backend_abilities(SOFTWARE),
    )
    return Surroundings(abilities=abilities, links={OURS: Link(name="eth0", driver=driver)})


def why(sa: SecurityAssociation, engine: Engine, machine: Surroundings) -> tuple[str, str]:
    """Return code and sentence of the refusal of one engine; empty if it takes the SA."""
    choice = choose(replace(sa, placement=Placement(require=engine)), machine)
    if choice.ability is not None:
        return "", ""
    (refusal,) = choice.refusals
    assert refusal.engine is engine
    return refusal.reason.value, refusal.text


def test_the_first_wish_that_can_be_had_is_chosen_and_needs_no_reason() -> None:
    choice = choose(inbound(**PLAIN), here("mlx5_core"))

    assert choice.ability is not None
    assert (choice.ability.engine, choice.ability.device) == (NIC_PACKET, "eth0")
    assert choice.refusals == ()


def test_each_better_engine_that_was_refused_has_its_own_reason() -> None:
    choice = choose(inbound(), here("ixgbe"))

    assert choice.ability is not None
    assert choice.ability.engine is Engine.KERNEL
    assert [(refusal.engine.value, refusal.reason.value) for refusal in choice.refusals] == [
        ("nic_packet", "NO_DEVICE"),
        ("nic_crypto", "KEYLEN"),
        ("engine", "NO_BACKEND"),
    ]
    assert in_words(choice.refusals) == (
        "nic_packet: NO_DEVICE: eth0 (ixgbe) has no packet offload, only crypto offload; "
        "nic_crypto: KEYLEN: eth0 (ixgbe) does AES_GCM_16 with keys of 128 bits, not 256; "
        "engine: NO_BACKEND: the agent has no backend that drives it"
    )


#: (driver, engine, direction, changes of the SA, code, sentence). An empty code: it is taken.
CASES: list[tuple[str, Engine, Any, dict[str, Any], str, str]] = [
    ("mlx5_core", NIC_PACKET, inbound, {"replay_window_packets": 1024}, "REPLAY_WINDOW", "not 1024"),
    ("mlx5_core", NIC_PACKET, outbound, {"replay_window_packets": 1024}, "", ""),
    ("mlx5_core", NIC_CRYPTO, inbound, {"replay_window_packets": 1024}, "", ""),
    ("mlx5_core", NIC_PACKET, inbound, PLAIN | {"esn": True}, "", ""),
    ("mlx5_core", NIC_PACKET, inbound, PLAIN | {"encapsulation": UDP}, "ENCAP", "in tunnel mode"),
    ("mlx5_core", NIC_PACKET, inbound, PLAIN | {"encapsulation": UDP, "mode": Mode.TRANSPORT}, "", ""),
    ("mlx5_core", NIC_CRYPTO, inbound, {"encapsulation": UDP, "mode": Mode.TRANSPORT}, "ENCAP", "transport"),
    ("mlx5_core", NIC_PACKET, inbound, PLAIN | {"encryption": Encr.AES_GCM_8}, "ICV", "AES_GCM_8"),
    (
        *("mlx5_core", NIC_PACKET, inbound, PLAIN | {"encryption": Encr.CHACHA20_POLY1305}),
        *("ALG_UNSUPPORTED", "does not do CHACHA20_POLY1305"),
    ),
    (
        *("mlx5_core", NIC_CRYPTO, inbound, {"protocol": IpsecProtocol.AH, "encryption": Encr.NULL}),
        *("ALG_UNSUPPORTED", "does not do AH"),
    ),
    (
        *("mlx5_core", NIC_CRYPTO, inbound, {"local_ts": (TrafficSelector.parse("10.1.0.0/16[sctp]"),)}),
        *("SELECTOR", "IP protocol 132"),
    ),
    ("mlx5_core", NIC_CRYPTO, inbound, {"local_ts": (TrafficSelector.parse("10.1.0.0/16[udp]"),)}, "", ""),
    ("ixgbe", NIC_CRYPTO, inbound, {"key_bits": 128}, "MODE", "does not do tunnel mode"),
    ("ixgbe", NIC_CRYPTO, inbound, {"key_bits": 128, "mode": Mode.TRANSPORT}, "", ""),
    ("ixgbe", NIC_CRYPTO, inbound, {"key_bits": 128, "mode": Mode.TRANSPORT, "esn": True}, "ESN", "extended"),
    ("cxgb4", NIC_CRYPTO, inbound, {}, "DIRECTION", "takes no inbound SAs"),
    ("cxgb4", NIC_CRYPTO, outbound, {}, "", ""),
    ("netdevsim", NIC_CRYPTO, inbound, {"key_bits": 128, "encapsulation": UDP}, "", ""),
    (
        *("nfp", NIC_CRYPTO, inbound),
        *({"encryption": Encr.AES_CBC, "integrity": Integ.HMAC_SHA1_160}, "ICV", "HMAC_SHA1_160"),
    ),
    ("nfp", NIC_CRYPTO, inbound, {"encryption": Encr.AES_CBC, "integrity": Integ.HMAC_SHA2_256_128}, "", ""),
    (
        *("nfp", NIC_CRYPTO, inbound, {"encryption": Encr.AES_CBC, "integrity": Integ.AES_XCBC_96}),
        *("ALG_UNSUPPORTED", "AES_XCBC_96"),
    ),
]


@pytest.mark.parametrize(
    ("driver", "engine", "make", "changes", "code", "said"),
    CASES,
    ids=[f"{case[0]}-{case[1].value}-{number}" for number, case in enumerate(CASES)],
)
def test_what_a_driver_does_not_take_is_known_before_it_is_asked(
    *, driver: str, engine: Engine, make: Any, changes: dict[str, Any], code: str, said: str
) -> None:
    reason, text = why(make(**changes), engine, here(driver))

    assert reason == code
    assert said in text


def test_what_came_with_a_newer_kernel_names_it() -> None:
    sa = inbound(**PLAIN)

    assert why(sa, NIC_PACKET, here("mlx5_core", "6.1.0-18-amd64")) == (
        "KERNEL_TOO_OLD",
        "packet offload of mlx5_core came with Linux 6.2, this is 6.1.0-18-amd64",
    )
    assert why(sa, NIC_PACKET, here("mlx5_core", "6.3.1")) == (
        "KERNEL_TOO_OLD",
        "eth0 (mlx5_core) needs a newer kernel: tunnel from Linux 6.4, prefixes from Linux 6.15",
    )
    hosts = {
        "local_ts": (TrafficSelector.parse("10.1.0.1"),),
        "remote_ts": (TrafficSelector.parse("10.2.0.1"),),
    }
    assert why(replace(sa, **hosts), NIC_PACKET, here("mlx5_core", "6.4.0")) == ("", "")


def test_a_driver_that_sends_what_a_prefix_holds_in_clear_is_not_asked() -> None:
    """Before Linux 6.15 mlx5 matched a policy's prefix by its first address, and let all others out."""
    sa = outbound(**PLAIN)

    assert why(sa, NIC_PACKET, here("mlx5_core", "6.14.9")) == (
        "KERNEL_TOO_OLD",
        "eth0 (mlx5_core) needs a newer kernel: prefixes from Linux 6.15",
    )
    assert why(sa, NIC_PACKET, here("mlx5_core", "6.15.0")) == ("", "")


@pytest.mark.parametrize(
    ("feature", "code", "said"),
    [
        ("on", "", ""),
        ("off", "FEATURE_OFF", "esp-hw-offload of eth0 is off"),
        ("off [fixed]", "NO_DEVICE", "eth0 (mlx5_core) does not offer esp-hw-offload"),
        ("unknown", "", ""),
    ],
)
def test_a_switch_that_is_off_is_told_apart_from_one_that_is_not_there(
    feature: str, code: str, said: str
) -> None:
    reason, text = why(inbound(), NIC_CRYPTO, here("mlx5_core", feature=feature))

    assert reason == code
    assert text.startswith(said)


def test_a_kernel_built_without_the_drivers_offload_is_named() -> None:
    around = surroundings_of_nics("6.12.1", without=("CONFIG_MLX5_EN_IPSEC",))
    abilities = nic_abilities(KERNEL, [nic("eth0", "mlx5_core", feature="off [fixed]")], around)

    machine = Surroundings(abilities=abilities, links={OURS: Link(name="eth0")})

    assert why(inbound(), NIC_CRYPTO, machine) == (
        "FEATURE_OFF",
        "the kernel is built without CONFIG_MLX5_EN_IPSEC, which mlx5_core offloads with",
    )


def test_a_nic_under_an_unknown_driver_that_offers_the_feature_is_tried() -> None:
    assert why(inbound(), NIC_PACKET, here("brandnew")) == ("", "")
    assert why(inbound(), NIC_PACKET, here("virtio_net", feature="off [fixed]")) == (
        "NO_DEVICE",
        "eth0, which has 192.0.2.1, does not offload ESP: its driver virtio_net is not known to",
    )


def test_the_nic_is_the_one_that_has_our_outer_address() -> None:
    machine = here("mlx5_core")
    elsewhere = replace(machine, links={OURS: Link(name="eth1"), ip_address("192.0.2.9"): Link(name="eth0")})

    assert why(inbound(), NIC_CRYPTO, elsewhere)[0] == "NO_DEVICE"
    assert why(inbound(destination=ip_address("192.0.2.9")), NIC_CRYPTO, elsewhere) == ("", "")
    assert why(outbound(source=ip_address("192.0.2.9")), NIC_CRYPTO, elsewhere) == ("", "")
    assert why(inbound(), NIC_CRYPTO, replace(machine, links={})) == (
        "NO_DEVICE",
        "no interface has 192.0.2.1",
    )


def test_a_nic_that_is_down_takes_nothing() -> None:
    machine = here("mlx5_core")
    down = replace(machine, links={OURS: Link(name="eth0", driver="mlx5_core", is_up=False)})

    assert why(inbound(), NIC_CRYPTO, down) == ("NO_DEVICE", "eth0 is down")
    assert why(inbound(), Engine.KERNEL, down) == ("", "")


def test_a_full_table_is_seen_before_the_driver_has_to_say_it() -> None:
    machine = replace(here("netdevsim"), used={(NIC_CRYPTO, "eth0"): 33})

    assert why(inbound(key_bits=128), NIC_CRYPTO, machine) == (
        "SA_TABLE_FULL",
        "eth0 (netdevsim) holds 33 SAs and has 33",
    )
    assert why(inbound(key_bits=128), NIC_CRYPTO, replace(machine, used={(NIC_CRYPTO, "eth0"): 32})) == (
        "",
        "",
    )


def test_an_engine_that_refused_already_is_passed_over_with_its_own_words() -> None:
    no = PlacementRefusal(
        engine=NIC_PACKET, reason=PlacementReason.DRIVER_REFUSED, text="Cannot support duplicated SA"
    )

    choice = choose(inbound(**PLAIN), here("mlx5_core"), {NIC_PACKET: no})

    assert choice.ability is not None
    assert choice.ability.engine is NIC_CRYPTO
    assert choice.refusals == (no,)


def test_why_a_backend_is_absent_is_said_for_each_of_its_engines() -> None:
    absent = Closed(reason=PlacementReason.NO_BACKEND, text="this kernel has no ESP over IPv4")
    machine = Surroundings(
        abilities=backend_abilities(SOFTWARE),
        absent=dict.fromkeys((NIC_PACKET, NIC_CRYPTO, Engine.KERNEL), absent),
    )

    choice = choose(inbound(), machine)

    assert choice.ability is not None
    assert choice.ability.engine is Engine.SOFTWARE
    assert in_words(choice.refusals) == (
        "nic_packet, nic_crypto, kernel: NO_BACKEND: this kernel has no ESP over IPv4; "
        "engine: NO_BACKEND: the agent has no backend that drives it"
    )


def test_an_empty_wish_chooses_nothing() -> None:
    choice = choose(inbound(placement=Placement(prefer=())), here("mlx5_core"))

    assert (choice.ability, choice.refusals) == (None, ())


def test_a_backend_without_udp_sockets_refuses_encapsulation_and_small_windows_are_its_own() -> None:
    modest = replace(KERNEL, udp_encapsulation=False, max_replay_window_packets=64, esn=False)
    machine = Surroundings(abilities=backend_abilities(modest))

    assert why(outbound(encapsulation=UDP), Engine.KERNEL, machine)[0] == "ENCAP"
    assert why(inbound(), Engine.KERNEL, machine) == (
        "REPLAY_WINDOW",
        "the kernel does anti-replay windows of at most 64 packets, not 1024",
    )
    assert why(outbound(esn=True), Engine.KERNEL, machine)[0] == "ESN"


def test_traffic_of_a_tunnel_interface_goes_past_an_engine_in_xdp() -> None:
    in_xdp = replace(SOFTWARE, name="xdp", engines=(Engine.XDP,))
    machine = Surroundings(abilities=(*backend_abilities(in_xdp), *backend_abilities(SOFTWARE)))
    wish = Placement(prefer=(Engine.XDP, Engine.SOFTWARE))

    choice = choose(outbound(interface_id=42, placement=wish), machine)

    assert choice.ability is not None
    assert choice.ability.engine is Engine.SOFTWARE
    assert in_words(choice.refusals) == "xdp: SELECTOR: the XDP datapath has no tunnel interfaces"
    assert first_engines(wish.wanted, machine) == (Engine.XDP, Engine.SOFTWARE)
    assert first_engines(wish.wanted, machine, has_interface=True) == (Engine.SOFTWARE,)


def test_engines_of_a_wish_without_an_sa_are_those_that_are_open() -> None:
    machine = here("mlx5_core", feature="off")

    assert first_engines(DEFAULT_PREFERENCE, machine) == (Engine.KERNEL, Engine.SOFTWARE)


def test_every_check_has_a_sentence_that_names_what_was_asked() -> None:
    nothing = Ability(
        engine=Engine.XDP,
        place="the kernel",
        protocols=frozenset(),
        directions=frozenset(),
        modes=frozenset(),
        esn=False,
        max_replay_window_packets=0,
        udp_modes=frozenset(),
        selector_protocols=frozenset({6}),
        newer={"tunnel": "9.9", "udp": "9.9", "esn": "9.9"},
    )
    selectors = (TrafficSelector.parse("10.1.0.0/16[udp]"),)
    sa = inbound(
        esn=True,
        encapsulation=UDP,
        local_ts=selectors,
        integrity=Integ.HMAC_SHA1_160,
        interface_id=42,
        mark=Mark(1),
    )

    unmet = [check for check in CHECKS if not check.is_met(sa, nothing)]

    assert unmet == list(CHECKS)
    assert all(check.text(sa, nothing) for check in CHECKS)


@pytest.mark.parametrize(
    "wish", [Placement(require=Engine.XDP), Placement(prefer=(Engine.XDP,)), Placement(prefer=())]
)
def test_a_backend_alone_refuses_a_wish_for_other_engines(wish: Placement) -> None:
    with pytest.raises(DatapathError) as refused:
        first_wanted(wish, [Engine.SOFTWARE])

    assert refused.value.reason is ErrorReason.PLACEMENT_UNAVAILABLE


def test_a_backend_alone_takes_the_first_of_its_engines_that_is_wanted() -> None:
    wish = Placement(prefer=(Engine.NIC_PACKET, Engine.KERNEL, Engine.NIC_CRYPTO))

    assert first_wanted(wish, [Engine.NIC_CRYPTO, Engine.KERNEL]) is Engine.KERNEL


def test_capabilities_without_engines_of_nics_have_no_ability_of_a_nic() -> None:
    capabilities: Capabilities = replace(KERNEL, engines=(Engine.KERNEL,))

    assert nic_abilities(capabilities, [nic("eth0", "mlx5_core")], surroundings_of_nics("6.12")) == ()


# --- marks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("marks", [{"mark": Mark(1)}, {"set_mark": Mark(1)}], ids=["compared", "set"])
def test_marks_are_for_the_kernel_alone(marks: dict[str, Any]) -> None:
    machine = here("")
    sa = outbound(placement=Placement(prefer=(Engine.SOFTWARE, Engine.KERNEL)), **marks)

    found = choose(sa, machine)

    assert found.ability is not None
    assert found.ability.engine is Engine.KERNEL
    (refusal,) = found.refusals
    assert str(refusal) == "software: SELECTOR: the software datapath does not know marks of packets"
    assert first_engines(sa.placement.wanted, machine, has_marks=True) == (Engine.KERNEL,)

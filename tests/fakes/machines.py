"""Machines that no test runs on: NICs by driver, kernels by release, and what a whole backend could do."""

from gateway.datapath.ability import NicSurroundings
from gateway.datapath.backend import Capabilities
from gateway.esp.transform import supported_encryption, supported_integrity
from gateway.hardware.facts import Answer, Fact, NicFacts
from gateway.hardware.profiles import load_profiles
from gateway.ipsec.algorithms import Integ
from gateway.ipsec.placement import Engine
from gateway.ipsec.sa import IpsecProtocol, Mode

PROFILES = load_profiles()

SOFTWARE = Capabilities(
    name="software",
    engines=(Engine.SOFTWARE,),
    encryption=supported_encryption(),
    integrity=(*supported_integrity(), Integ.AES_128_GMAC),
    protocols=(IpsecProtocol.ESP, IpsecProtocol.AH),
    modes=(Mode.TUNNEL, Mode.TRANSPORT),
    esn=True,
    udp_encapsulation=True,
    max_replay_window_packets=4096,
    counters_survive_restart=False,
)
KERNEL = Capabilities(
    name="xfrm",
    engines=(Engine.NIC_PACKET, Engine.NIC_CRYPTO, Engine.KERNEL),
    encryption=supported_encryption(),
    integrity=supported_integrity(),
    protocols=(IpsecProtocol.ESP, IpsecProtocol.AH),
    modes=(Mode.TUNNEL, Mode.TRANSPORT),
    esn=True,
    udp_encapsulation=True,
    max_replay_window_packets=4096,
    counters_survive_restart=True,
)


def nic(name: str, driver: str, feature: str = "on") -> NicFacts:
    """Return an interface whose switch for ESP offload is `on`, `off`, `off [fixed]` or `unknown`."""
    answers = {"on": Answer.YES, "unknown": Answer.UNKNOWN}
    fact = Fact(
        name="esp-hw-offload",
        answer=answers.get(feature, Answer.NO),
        evidence="ETHTOOL_MSG_FEATURES_GET",
        value=feature,
    )
    return NicFacts(name=name, driver=driver, firmware="", bus="", pci_id="", numa_node=None, facts=(fact,))


def surroundings_of_nics(release: str, without: tuple[str, ...] = ()) -> NicSurroundings:
    """Return a kernel with the profiles of this checkout, built without some of the options they name."""
    options = {f"CONFIG_{option}" for profile in PROFILES for option in profile.kconfig}
    return NicSurroundings(
        release=release,
        options=tuple(
            Fact(name=option, answer=Answer.NO if option in without else Answer.YES, evidence="test")
            for option in sorted(options)
        ),
        profiles=PROFILES,
    )

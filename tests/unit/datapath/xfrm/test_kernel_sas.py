"""When the kernel refuses: what is told, and whether the key of an outbound SA may be used elsewhere."""

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

import pytest

from gateway.datapath.backend import DatapathError, ErrorReason, SoftExpire
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.devices import Devices
from gateway.datapath.xfrm.errors import KernelRefusedError
from gateway.datapath.xfrm.journal import Journal
from gateway.datapath.xfrm.kernel_sas import KernelSas
from gateway.datapath.xfrm.netlink import XfrmThread
from gateway.datapath.xfrm.notifications import Asked
from gateway.datapath.xfrm.numbers import MessageType
from gateway.datapath.xfrm.policies import PolicyKeeper
from gateway.datapath.xfrm.probe import KernelAbility
from gateway.datapath.xfrm.routes import Routes
from gateway.datapath.xfrm.sad import Sad
from gateway.datapath.xfrm.spd import Carriers, Spd
from gateway.ipsec.algorithms import Encr
from gateway.ipsec.placement import Engine, Placement
from gateway.ipsec.sa import IpsecProtocol, SecurityAssociation, Spi
from tests.conformance.sas import inbound, outbound, policy

T = TypeVar("T")
KERNEL = Placement(require=Engine.KERNEL)
TAG = 7


class Kernel:
    """As much of an `XfrmSocket` as installing takes; it refuses what it is told to."""

    def __init__(self) -> None:
        self.there: dict[r.SaId, r.Message[r.SaInfo]] = {}
        self.refuses: set[str] = set()
        self.warning = ""

    def _maybe_refuse(self, request: str) -> None:
        if request in self.refuses:
            raise KernelRefusedError(errno.ENOMEM, request)

    def add_sa(self, info: r.SaInfo, attributes: r.Attributes) -> None:
        self._maybe_refuse("SA")
        self.there[info.id] = r.Message(type=MessageType.NEWSA, body=info, attributes=attributes)

    def sa(self, kernel_id: r.SaId, _attributes: r.Attributes) -> r.Message[r.SaInfo]:
        return self.there[kernel_id]

    def delete_sa(self, kernel_id: r.SaId, *, attributes: r.Attributes) -> None:
        del self.there[kernel_id]

    def update_policy(self, _info: r.PolicyInfo, _attributes: r.Attributes) -> None:
        self._maybe_refuse("policy")

    def delete_policy(self, _policy: r.PolicyId, _attributes: r.Attributes) -> None:
        self._maybe_refuse("policy")


class Thread:
    """An `XfrmThread` without a thread."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def run(self, call: Callable[[Any], T]) -> T:
        return call(self._kernel)


class NoRoutes:
    """`Routes` where none is ever needed."""

    def misses(self, _name: str) -> bool:
        return False

    async def follow(self, *_: object) -> None:
        pass

    async def put_in_force(self) -> None:
        pass


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
async def sas(kernel: Kernel) -> KernelSas:
    """The SAs of a backend with one SPD entry."""
    sad, spd, journal = Sad(bytes), Spd(TAG), Journal(None)
    thread = cast("XfrmThread", Thread(kernel))
    policies = PolicyKeeper(thread, spd, sad, cast("Routes", NoRoutes()), journal)
    made = KernelSas(thread, sad, policies, cast("Devices", None), journal, tag=TAG, mark=0, has_udp=False)
    made.ability = KernelAbility(
        encryption=((Encr.AES_GCM_16, 256),),
        integrity=(),
        protocols=(IpsecProtocol.ESP,),
        knows_direction=True,
        versions=(4,),
    )
    await policies.apply([policy()], 0)
    return made


def sending(spi: int = 0x2001) -> SecurityAssociation:
    return outbound(spi, placement=KERNEL)


async def refusal_of(sas: KernelSas, sa: SecurityAssociation) -> DatapathError:
    with pytest.raises(DatapathError) as refused:
        await sas.install(sa, 0)
    return refused.value


async def test_sa_that_the_kernel_refused_may_be_sent_with_elsewhere(sas: KernelSas, kernel: Kernel) -> None:
    sa = sending()
    kernel.refuses = {"SA"}

    assert (await refusal_of(sas, sa)).reason is ErrorReason.TABLE_FULL

    kernel.refuses = set()
    assert (await sas.install(replace(sa, spi=Spi(0x2002)), 0)).engine is Engine.KERNEL


async def test_sa_whose_policies_were_refused_may_have_been_used_and_its_key_is_spent(
    sas: KernelSas, kernel: Kernel
) -> None:
    sa = sending()
    kernel.refuses = {"policy"}

    # A reason for which nobody tries another backend with the same key.
    assert (await refusal_of(sas, sa)).reason is ErrorReason.POLICY_CONFLICT
    assert kernel.there == {}

    kernel.refuses = set()
    again = await refusal_of(sas, replace(sa, spi=Spi(0x2002)))
    assert "IVs" in str(again)


async def test_refused_inbound_sa_does_not_free_the_key_of_an_outbound_one(
    sas: KernelSas, kernel: Kernel
) -> None:
    sa = sending()
    await sas.install(sa, 0)
    kernel.refuses = {"SA"}
    await refusal_of(sas, inbound(placement=KERNEL, encryption_key=sa.encryption_key))
    kernel.refuses = set()

    again = await refusal_of(sas, replace(sa, spi=Spi(0x2002)))

    assert again.reason is ErrorReason.SPI_IN_USE


@pytest.mark.parametrize(("sent", "is_told"), [(3 * 2**30 - 1, False), (3 * 2**30, True)])
async def test_offloaded_sa_is_told_once_that_its_sequence_numbers_run_out(
    sas: KernelSas, kernel: Kernel, sent: int, is_told: bool
) -> None:
    held = await sas.install(sending(), 0)
    there = kernel.there[held.kernel_id]
    replay = r.ReplayState(outbound=sent)
    kernel.there[held.kernel_id] = replace(there, attributes=replace(there.attributes, replay=replay))
    in_software = await sas.find_worn()
    held.offload = r.Offload(link=2)

    first, second = await sas.find_worn(), await sas.find_worn()

    event = SoftExpire(sa_id=held.sa.sa_id, spi=held.sa.spi, limit="sequence")
    assert (in_software, first, second) == ((), (event,) if is_told else (), ())


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"encryption": Encr.CHACHA20_POLY1305}, ErrorReason.ALGORITHM_UNSUPPORTED, "CHACHA20_POLY1305"),
        ({"key_bits": 128}, ErrorReason.KEY_LENGTH, "36"),
    ],
)
async def test_what_the_kernel_has_not_is_refused_without_asking_it(
    sas: KernelSas, kernel: Kernel, changes: dict[str, object], reason: ErrorReason, words: str
) -> None:
    refused = await refusal_of(sas, replace(sending(), **changes))  # type: ignore[arg-type]

    assert refused.reason is reason
    assert words in str(refused)
    assert kernel.there == {}


async def test_an_sa_says_which_acquire_it_answers_but_for_one_whose_child_is_gone(
    sas: KernelSas, kernel: Kernel
) -> None:
    with_the_entry, without = Spd(TAG), Spd(TAG)
    with_the_entry.put(policy(), 0, Carriers(reqid=100, trap_reqid=101))
    sequences = []
    for spi, spd in enumerate((with_the_entry, without), 0x2001):
        sas.note_asked(Asked(("paris", "lan"), 7))
        sas.forget_asked(spd)
        held = await sas.install(sending(spi), 0)
        sequences.append(kernel.there[held.kernel_id].body.sequence)

    assert sequences == [7, 0]

"""Requests and answers, against a kernel that is a script: what the real one does too rarely to wait for."""

import errno
import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.datapath.xfrm import netlink
from gateway.datapath.xfrm import records as r
from gateway.datapath.xfrm.codec import encode
from gateway.datapath.xfrm.errors import KernelRefusedError, NoAnswerError, XfrmDecodeError, XfrmError
from gateway.datapath.xfrm.netlink import XfrmSocket, split
from gateway.datapath.xfrm.numbers import MessageType
from gateway.ipsec.secret import Secret
from tests.unit.datapath.xfrm.samples import SA, SA6

KERNEL, STRANGER = (0, 0), (1234, 0)
CAPPED, TLVS, INTERRUPTED = 0x100, 0x200, 0x10


class Script:
    """A kernel that says what it is told to, one datagram at a time, whatever it is asked."""

    def __init__(self, *datagrams: tuple[tuple[int, int], bytes]) -> None:
        self.sent: list[bytes] = []
        self._datagrams = list(datagrams)

    def send(self, data: bytes) -> None:
        self.sent.append(bytes(data))

    def recvfrom(self, _most: int) -> tuple[bytes, tuple[int, int]]:
        if not self._datagrams:
            raise TimeoutError
        sender, data = self._datagrams.pop(0)
        return data, sender

    def close(self) -> None:
        pass


def xfrm(monkeypatch: pytest.MonkeyPatch, script: Script) -> XfrmSocket:
    real = XfrmSocket(timeout_s=1.0)
    real.close()
    monkeypatch.setattr(real, "_socket", script)
    return real


def frame(kind: int, sequence: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 99) + body


def ack(sequence: int, code: int = 0, *, text: str = "", offset: int = 0, missing: int = 0) -> bytes:
    """Return an acknowledgement of a request whose body is not repeated."""
    said = b""
    if text:
        value = text.encode() + b"\0"
        said += struct.pack("=HH", 4 + len(value), 1) + value + bytes(-len(value) % 4)
    if offset:
        said += struct.pack("=HHI", 8, 2, offset)
    if missing:
        said += struct.pack("=HHI", 8, 5, missing)
    echo = struct.pack("=IHHII", 400, 0x10, 5, sequence, 0)
    return frame(2, sequence, struct.pack("=i", -code) + echo + said, CAPPED | (TLVS if said else 0))


def done(sequence: int, code: int = 0, flags: int = 0) -> bytes:
    return frame(3, sequence, struct.pack("=i", -code), flags)


def newsa(sequence: int, sa: r.SaInfo = SA, flags: int = 2) -> bytes:
    return bytes(encode(r.Message(type=MessageType.NEWSA, body=sa, sequence=sequence, flags=flags)))


def test_answers_come_before_the_acknowledgement_in_one_datagram_or_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = Script((KERNEL, newsa(1)), (KERNEL, ack(1)), (KERNEL, newsa(2) + ack(2)))
    kernel = xfrm(monkeypatch, script)

    assert kernel.sa(SA.id).body == SA
    assert kernel.sa(SA.id).body == SA
    assert [struct.unpack_from("=I", one, 8)[0] for one in script.sent] == [1, 2]


def test_what_other_processes_send_and_late_answers_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(
        (STRANGER, newsa(1, SA6)), (KERNEL, newsa(0, SA6) + ack(0, 5)), (KERNEL, newsa(1) + ack(1))
    )

    assert xfrm(monkeypatch, script).sa(SA.id).body == SA


def test_dump_that_was_disturbed_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(
        (KERNEL, newsa(1) + newsa(1, SA6, flags=2 | INTERRUPTED) + done(1)),
        (KERNEL, newsa(2) + newsa(2, SA6) + done(2)),
    )

    assert [one.body for one in xfrm(monkeypatch, script).sas()] == [SA, SA6]
    assert len(script.sent) == 2


def test_dump_that_is_always_disturbed_ends_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(*((KERNEL, done(i, flags=INTERRUPTED)) for i in range(1, 20)))

    with pytest.raises(KernelRefusedError, match="EINTR"):
        xfrm(monkeypatch, script).sas()


def test_dump_may_end_in_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KernelRefusedError) as refused:
        xfrm(monkeypatch, Script((KERNEL, done(1, errno.EPERM)))).policies()

    assert (refused.value.code, refused.value.request) == (errno.EPERM, "XFRM_MSG_GETPOLICY")


def test_dump_is_read_to_its_end_past_what_makes_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    nonsense = bytearray(newsa(1))
    nonsense[16 + 214] = 99
    script = Script(
        (KERNEL, bytes(nonsense)), (KERNEL, newsa(1)), (KERNEL, done(1)), (KERNEL, newsa(2) + ack(2))
    )
    kernel = xfrm(monkeypatch, script)

    with pytest.raises(XfrmDecodeError, match="99 is no Mode"):
        kernel.sas()
    assert kernel.sa(SA.id).body == SA


def test_silence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoAnswerError, match="XFRM_MSG_GETSADINFO within 1 s"):
        xfrm(monkeypatch, Script()).sad_info()


@pytest.mark.parametrize("answers", [(), (newsa(1), newsa(1))])
def test_not_one_answer_where_one_is_due_is_an_error(
    monkeypatch: pytest.MonkeyPatch, answers: Iterable[bytes]
) -> None:
    with pytest.raises(XfrmDecodeError, match=f"{len(tuple(answers))} answers"):
        xfrm(monkeypatch, Script((KERNEL, b"".join(answers) + ack(1)))).sa(SA.id)


def test_answer_of_another_kind_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(XfrmDecodeError, match="XFRM_MSG_NEWSA"):
        xfrm(monkeypatch, Script((KERNEL, newsa(1) + ack(1)))).spd_info()


@pytest.mark.parametrize(
    ("answer", "attribute", "is_missing", "says"),
    [
        (ack(1, errno.EINVAL), None, False, "XFRM_MSG_NEWSA with EINVAL, invalid argument$"),
        (ack(1, errno.EINVAL, text="no good"), None, False, "invalid argument: no good$"),
        # The request: header 16, body 224, XFRMA_ALG_CRYPT of 84, XFRMA_IF_ID of 8.
        (ack(1, errno.EINVAL, text="x", offset=240), "XFRMA_ALG_CRYPT", False, r"\(at XFRMA_ALG_CRYPT\)$"),
        (ack(1, errno.EINVAL, text="x", offset=324), "XFRMA_IF_ID", False, r"\(at XFRMA_IF_ID\)$"),
        (ack(1, errno.EINVAL, text="x", offset=16), None, False, "x$"),
        (ack(1, errno.EINVAL, missing=18), "XFRMA_ALG_AEAD", True, r"\(misses XFRMA_ALG_AEAD\)$"),
        (ack(1, errno.EINVAL, missing=99), "attribute 99", True, r"\(misses attribute 99\)$"),
    ],
)
def test_refusal_says_what_and_where(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, attribute: str | None, is_missing: bool, says: str
) -> None:
    attributes = r.Attributes(encryption=r.Algorithm(name="cbc(aes)", key=Secret(bytes(12))), if_id=1)

    with pytest.raises(KernelRefusedError, match=says) as refused:
        xfrm(monkeypatch, Script((KERNEL, answer))).add_sa(SA, attributes)

    assert (refused.value.attribute, refused.value.is_missing) == (attribute, is_missing)


@given(st.binary(max_size=200))
def test_any_datagram_is_split_or_refused(data: bytes) -> None:
    try:
        parts = list(split(data))
    except XfrmDecodeError:
        return
    assert sum(len(part) for part in parts) <= len(data)


@given(st.sampled_from([2, 3]), st.integers(0, 0xFFFF), st.binary(max_size=120))
def test_any_acknowledgement_is_success_or_an_error_of_ours(kind: int, flags: int, body: bytes) -> None:
    request = netlink._Request(MessageType.NEWSA, 5, ((1, 240, 84),))

    try:
        netlink._check_end(frame(kind, 1, body, flags), request)
    except XfrmError:
        return
    assert body[:4] in {b"", bytes(4)} or (kind == 3 and len(body) < 4)

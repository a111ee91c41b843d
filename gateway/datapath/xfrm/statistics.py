"""/proc/net/xfrm_stat: what the kernel dropped, in the words of `DropReason`.

The counters are of a network namespace, whoever's the SA or the policy was; docs/troubleshooting.md has cause
and remedy of each. Those that also count per SA are left out here.
"""

from pathlib import Path
from typing import Final

from gateway.ipsec.drop_reason import DropReason

PATH: Final = Path("/proc/thread-self/net/xfrm_stat")

REASONS: Final[dict[str, DropReason | None]] = {
    "XfrmInError": DropReason.MALFORMED,
    "XfrmInBufferError": DropReason.MALFORMED,
    "XfrmInHdrError": DropReason.MALFORMED,
    "XfrmInNoStates": DropReason.UNKNOWN_SPI,
    # With the SA: INTEGRITY.
    "XfrmInStateProtoError": None,
    "XfrmInStateModeError": DropReason.MODE_MISMATCH,
    # With the SA: REPLAY and REPLAY_WINDOW.
    "XfrmInStateSeqError": None,
    "XfrmInStateExpired": DropReason.SA_EXPIRED,
    "XfrmInStateMismatch": DropReason.SELECTOR_MISMATCH,
    "XfrmInStateInvalid": DropReason.UNKNOWN_SPI,
    # A clear packet, or a decrypted one that came by an SA of another policy.
    "XfrmInTmplMismatch": DropReason.CLEAR_INBOUND,
    # A decrypted packet that no policy is of.
    "XfrmInNoPols": DropReason.SELECTOR_MISMATCH,
    "XfrmInPolBlock": DropReason.POLICY_DISCARD,
    "XfrmInPolError": DropReason.SEND_FAILED,
    "XfrmOutError": DropReason.SEND_FAILED,
    "XfrmOutBundleGenError": DropReason.SEND_FAILED,
    "XfrmOutBundleCheckError": DropReason.SEND_FAILED,
    "XfrmOutNoStates": DropReason.NO_SA,
    "XfrmOutStateProtoError": DropReason.SEND_FAILED,
    "XfrmOutStateModeError": DropReason.SEND_FAILED,
    "XfrmOutStateSeqError": DropReason.SEQUENCE_OVERFLOW,
    "XfrmOutStateExpired": DropReason.SA_EXPIRED,
    "XfrmOutPolBlock": DropReason.POLICY_DISCARD,
    "XfrmOutPolDead": DropReason.SEND_FAILED,
    "XfrmOutPolError": DropReason.SEND_FAILED,
    "XfrmFwdHdrError": DropReason.MALFORMED,
    "XfrmOutStateInvalid": DropReason.SEND_FAILED,
    # The packet that asked is in XfrmOutNoStates.
    "XfrmAcquireError": None,
    "XfrmOutStateDirError": DropReason.SEND_FAILED,
    "XfrmInStateDirError": DropReason.UNKNOWN_SPI,
    "XfrmInIptfsError": DropReason.MALFORMED,
    "XfrmOutNoQueueSpace": DropReason.SEND_FAILED,
}
"""By the name of the counter, as Linux 6.18 has them; `None` where another place counts the same."""


def parse_statistics(text: str) -> dict[str, int]:
    """Return the counters by name; a line that is none is passed over."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def read_statistics() -> dict[str, int]:
    """Return the counters of this thread's network namespace; none without CONFIG_XFRM_STATISTICS."""
    try:
        return parse_statistics(PATH.read_text())
    except FileNotFoundError:
        return {}


def drops_of(statistics: dict[str, int]) -> dict[DropReason, int]:
    """Return the counters by reason, those that counted something."""
    drops: dict[DropReason, int] = {}
    for name, count in statistics.items():
        reason = REASONS.get(name)
        if reason is not None and count:
            drops[reason] = drops.get(reason, 0) + count
    return drops

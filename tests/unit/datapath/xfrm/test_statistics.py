"""/proc/net/xfrm_stat in the words of drop reasons."""

from gateway.datapath.xfrm.statistics import drops_of, parse_statistics, read_statistics
from gateway.ipsec.drop_reason import DropReason

TEXT = """XfrmInError             \t0
XfrmInNoStates          \t3
XfrmInStateProtoError   \t5
XfrmInTmplMismatch      \t2
XfrmOutPolBlock         \t1
XfrmInPolBlock          \t1
XfrmOfSomeLaterLinux    \t9
not a counter
"""


def test_counters_are_added_up_by_reason_and_those_of_sas_left_out() -> None:
    assert drops_of(parse_statistics(TEXT)) == {
        DropReason.UNKNOWN_SPI: 3,
        DropReason.CLEAR_INBOUND: 2,
        DropReason.POLICY_DISCARD: 2,
    }


def test_counters_of_this_machine_are_read() -> None:
    # A kernel without CONFIG_XFRM_STATISTICS has none.
    assert all(count >= 0 for count in read_statistics().values())

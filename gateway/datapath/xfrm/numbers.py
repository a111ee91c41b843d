"""The numbers of NETLINK_XFRM: message types, attributes, groups, flags.

Facts of `<linux/xfrm.h>` (Linux 6.18; the header of Linux 6.1 has them up to XFRMA_MTIMER_THRESH). The first
kernel that knows a number stands beside those newer than Linux 6.1. A kernel ignores what it does not know.
"""

from enum import IntEnum, IntFlag
from typing import Final

INFINITE: Final = 2**64 - 1
"""XFRM_INF: no limit of bytes or packets."""

ANY_PROTOCOL: Final = 255
"""IPSEC_PROTO_ANY: every protocol, in a flush or a dump."""

ANY_CPU: Final = 2**32 - 1
"""XFRMA_SA_PCPU of an SA that belongs to no CPU; the kernel leaves the attribute out."""


class MessageType(IntEnum):
    """`nlmsg_type` of this netlink family (XFRM_MSG_*)."""

    NEWSA = 0x10
    DELSA = 0x11
    GETSA = 0x12
    NEWPOLICY = 0x13
    DELPOLICY = 0x14
    GETPOLICY = 0x15
    ALLOCSPI = 0x16
    ACQUIRE = 0x17
    EXPIRE = 0x18
    UPDPOLICY = 0x19
    UPDSA = 0x1A
    POLEXPIRE = 0x1B
    FLUSHSA = 0x1C
    FLUSHPOLICY = 0x1D
    NEWAE = 0x1E
    GETAE = 0x1F
    REPORT = 0x20
    MIGRATE = 0x21
    NEWSADINFO = 0x22
    GETSADINFO = 0x23
    NEWSPDINFO = 0x24
    GETSPDINFO = 0x25
    MAPPING = 0x26
    SETDEFAULT = 0x27
    GETDEFAULT = 0x28


class Attribute(IntEnum):
    """`nla_type` in every message but the four of SADINFO and SPDINFO (XFRMA_*)."""

    ALG_AUTH = 1
    ALG_CRYPT = 2
    ALG_COMP = 3
    ENCAP = 4
    TMPL = 5
    SA = 6
    POLICY = 7
    SEC_CTX = 8
    LTIME_VAL = 9
    REPLAY_VAL = 10
    REPLAY_THRESH = 11
    ETIMER_THRESH = 12
    SRCADDR = 13
    COADDR = 14
    LASTUSED = 15
    POLICY_TYPE = 16
    MIGRATE = 17
    ALG_AEAD = 18
    KMADDRESS = 19
    ALG_AUTH_TRUNC = 20
    MARK = 21
    TFCPAD = 22
    REPLAY_ESN_VAL = 23
    SA_EXTRA_FLAGS = 24
    PROTO = 25
    ADDRESS_FILTER = 26
    PAD = 27
    OFFLOAD_DEV = 28
    SET_MARK = 29
    SET_MARK_MASK = 30
    IF_ID = 31
    MTIMER_THRESH = 32
    SA_DIR = 33  #: Linux 6.10.
    NAT_KEEPALIVE_INTERVAL = 34  #: Linux 6.11.
    SA_PCPU = 35  #: Linux 6.13.
    IPTFS_DROP_TIME = 36  #: Linux 6.14, as are the other five of IP-TFS.
    IPTFS_REORDER_WINDOW = 37
    IPTFS_DONT_FRAG = 38
    IPTFS_INIT_DELAY = 39
    IPTFS_MAX_QSIZE = 40
    IPTFS_PKT_SIZE = 41


class SadAttribute(IntEnum):
    """`nla_type` in NEWSADINFO and GETSADINFO (XFRMA_SAD_*)."""

    CNT = 1
    HINFO = 2


class SpdAttribute(IntEnum):
    """`nla_type` in NEWSPDINFO and GETSPDINFO (XFRMA_SPD_*)."""

    INFO = 1
    HINFO = 2
    IPV4_HTHRESH = 3
    IPV6_HTHRESH = 4


class Group(IntEnum):
    """Multicast groups (XFRMNLGRP_*)."""

    ACQUIRE = 1
    EXPIRE = 2
    SA = 3
    POLICY = 4
    AEVENTS = 5
    REPORT = 6
    MIGRATE = 7
    MAPPING = 8


class Mode(IntEnum):
    """What an SA does to a packet (XFRM_MODE_*)."""

    TRANSPORT = 0
    TUNNEL = 1
    ROUTEOPTIMIZATION = 2
    IN_TRIGGER = 3
    BEET = 4
    IPTFS = 5  #: Linux 6.14; RFC 9347.


class Share(IntEnum):
    """Who may share an SA (XFRM_SHARE_*); the kernel keeps it and does nothing with it."""

    ANY = 0
    SESSION = 1
    USER = 2
    UNIQUE = 3


class PolicyDirection(IntEnum):
    """Which traffic a policy is asked about (XFRM_POLICY_IN, _OUT, _FWD).

    A dump also lists the policies of sockets, whose numbers are higher by XFRM_POLICY_MAX.
    """

    IN = 0
    OUT = 1
    FORWARD = 2
    SOCKET_IN = 3
    SOCKET_OUT = 4


class PolicyAction(IntEnum):
    """What a policy does (XFRM_POLICY_ALLOW, _BLOCK); ALLOW without templates is the BYPASS of RFC 4301."""

    ALLOW = 0
    BLOCK = 1


class PolicyType(IntEnum):
    """The main SPD, or that of Mobile IPv6 (XFRM_POLICY_TYPE_*)."""

    MAIN = 0
    SUB = 1
    ANY = 255


class DefaultAction(IntEnum):
    """What happens to traffic no policy matches (XFRM_USERPOLICY_*)."""

    UNSPECIFIED = 0
    BLOCK = 1
    ACCEPT = 2


class SaDirection(IntEnum):
    """XFRM_SA_DIR_IN, _OUT; Linux 6.10."""

    IN = 1
    OUT = 2


class EncapsulationType(IntEnum):
    """UDP_ENCAP_* and TCP_ENCAP_* of `<linux/udp.h>`, those an SA may have."""

    NONE = 0
    ESP_IN_UDP_NON_IKE = 1
    ESP_IN_UDP = 2
    ESP_IN_TCP = 7


class SaFlag(IntFlag):
    """Flags of an SA (XFRM_STATE_*)."""

    NOECN = 1
    DECAP_DSCP = 2
    NOPMTUDISC = 4
    WILDRECV = 8
    ICMP = 16
    AF_UNSPEC = 32
    ALIGN4 = 64
    ESN = 128


class SaExtraFlag(IntFlag):
    """More flags of an SA (XFRM_SA_XFLAG_*)."""

    DONT_ENCAP_DSCP = 1
    OSEQ_MAY_WRAP = 2


class PolicyFlag(IntFlag):
    """Flags of a policy (XFRM_POLICY_*)."""

    LOCALOK = 1
    ICMP = 2
    CPU_ACQUIRE = 4  #: Linux 6.13: one ACQUIRE for each CPU.


class OffloadFlag(IntFlag):
    """Flags of XFRMA_OFFLOAD_DEV (XFRM_OFFLOAD_*); without PACKET an SA asks for crypto offload."""

    IPV6 = 1
    INBOUND = 2
    PACKET = 4  #: Linux 6.2.


class AeventFlag(IntFlag):
    """What an asynchronous event asks for or tells (XFRM_AE_*)."""

    REPLAY_THRESHOLD = 1
    REPLAY_VALUE = 2
    LIFETIME_VALUE = 4
    EXPIRY_TIMER_THRESHOLD = 8
    CAUSE_REPLAY = 16
    CAUSE_TIMER = 32
    CAUSE_UPDATE = 64

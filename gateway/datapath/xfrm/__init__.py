"""NETLINK_XFRM: how the SAD and the SPD of the Linux kernel are read, changed and watched.

`numbers`, `layouts` and `messages` are the wire format on pyroute2's classes, complete up to Linux 6.18;
`records` and `codec` give it types; `netlink` speaks to the kernel. Not a datapath backend: it decides
nothing.
"""

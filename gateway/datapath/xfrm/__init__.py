"""The kernel's ESP and AH: its SAD and SPD, read, changed and watched over NETLINK_XFRM.

`numbers`, `layouts` and `messages` are the wire format on pyroute2's classes, complete up to Linux 6.18;
`records` and `codec` give it types; `netlink` speaks to the kernel. None of them decides anything: that is
for `backend`, which is a `Datapath`, and the files around it (docs/architecture.md).
"""

"""The portable backend: TUN, raw and UDP sockets, `gateway.esp`. The slow path."""

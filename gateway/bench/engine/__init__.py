"""`ipsecgw bench crypto` and `ipsecgw bench engine`: the native engine in memory, without any packet I/O."""

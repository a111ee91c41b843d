"""`ipsecgw bench steering`: what XDP takes to decide where a packet goes."""

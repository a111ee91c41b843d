"""`ipsecgw bench tcp`: TCP between two hosts, each behind a gateway of ours, all on this machine."""

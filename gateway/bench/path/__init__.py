"""`ipsecgw bench path`: packets through a gateway, wherever its SAs are."""

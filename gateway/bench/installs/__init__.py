"""`ipsecgw bench installs`: how fast an agent takes SAs over its datapath API."""

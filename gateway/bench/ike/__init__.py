"""`ipsecgw bench ike`: what the control plane costs, alone, over UDP, and beside strongSwan's charon."""

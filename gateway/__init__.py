"""Offloaded-crypto IPsec gateway: IKEv2 in Python, packets anywhere but."""

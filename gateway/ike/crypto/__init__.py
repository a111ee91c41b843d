"""Key exchange, PRF, key derivation and the SK ciphers of IKEv2."""

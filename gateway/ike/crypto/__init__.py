"""The cryptography of IKEv2: PRFs, key exchange, ciphers, key derivation; no messages, no state."""

"""Messages and payloads of IKEv2 as bytes and back (RFC 7296 §3)."""

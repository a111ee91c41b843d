"""IKEv2 messages as frozen records, and the bytes they are made of (RFC 7296 §3)."""

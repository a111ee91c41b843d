"""Decode, decrypt and verify IKE and ESP in captures."""

"""Probes of what this machine can offload."""

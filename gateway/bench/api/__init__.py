"""The control API under load, beside vici."""

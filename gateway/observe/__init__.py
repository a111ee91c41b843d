"""Logs, metrics and the opt-in key log."""

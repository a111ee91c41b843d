"""Composition roots: build, wire, run, shut down."""

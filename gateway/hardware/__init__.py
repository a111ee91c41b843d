"""Probes of what this machine can offload.

`facts.py` has the records, `machine.py` collects them; every other file reads one thing. Parsing is pure:
parsers take `Reading`s and replies, so that tests give them those of other machines. Nothing here changes the
machine.
"""

"""Configurations of other IKE daemons, read and rewritten as ours: what `ipsecgw import` runs.

`statement` has the words of every reader; `sections` and `conf` are the two file syntaxes; `keywords_*` say
what becomes of each documented keyword; `swanctl` and `ipsec_conf` read whole configurations; `draft` is what
comes out, plain data in the spelling of our configuration file.
"""

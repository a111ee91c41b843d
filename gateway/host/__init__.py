"""This machine: sockets, links, routes, nftables rules, capabilities."""

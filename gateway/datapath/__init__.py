"""Datapath backends behind one protocol: `gateway.datapath.backend.Datapath`."""

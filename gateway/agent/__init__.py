"""The datapath agent: the SAD and SPD of this node on top of one backend."""

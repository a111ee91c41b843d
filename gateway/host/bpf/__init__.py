"""Loading BPF programs: a spec read from a compiled object, and objects in the kernel made from it."""

"""The native engine: this side of the seam `hw/engine/include/gw_engine.h`."""

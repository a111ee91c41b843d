"""Demo and measurements in network namespaces."""

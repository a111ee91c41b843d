"""Generated messages and stubs of the services that benchmarks use."""

"""Generated messages and stubs of the datapath service."""

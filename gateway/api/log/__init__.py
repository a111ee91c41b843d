"""Generated messages and stubs of the log service."""

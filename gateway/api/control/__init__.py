"""Generated messages and stubs of the control service."""

"""Generated messages shared by both services."""

"""Secret references and foreign configuration formats."""

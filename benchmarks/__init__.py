"""What the project claims of its speed, as commands that print a table: ``python -m benchmarks``."""

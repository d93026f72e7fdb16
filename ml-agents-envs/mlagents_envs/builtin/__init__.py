"""Built-in environments, one module each; none is imported before it is asked for, so neither is its simulator."""

"""Parts that optimizers combine: reward providers."""

"""A trainer for mlagents."""

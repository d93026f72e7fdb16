"""A place for trainers written as plug-ins of `mlagents`, the way a third party writes them."""

__version__ = "2.0.0"

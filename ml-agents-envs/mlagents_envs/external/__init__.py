"""Environments of other libraries as `BaseEnv`s: Gymnasium's and PettingZoo's."""

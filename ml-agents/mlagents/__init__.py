"""Reinforcement learning for game and simulation agents, in which anyone can write a trainer."""

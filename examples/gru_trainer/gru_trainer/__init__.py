"""PPO whose networks remember by a gated recurrent unit."""

"""Networks, distributions and encoders: plain nn.Modules that know no trainer."""

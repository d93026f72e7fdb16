"""`mlagents-new-trainer`: the beginning of a trainer plug-in."""

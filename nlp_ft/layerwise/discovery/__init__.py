"""Finds the layers of any network: its lists of blocks, the order in which they run, and the parameters around them."""

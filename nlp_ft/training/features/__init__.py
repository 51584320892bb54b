"""The cache of what frozen blocks compute: whether it pays, where it is kept, how training uses it."""

"""Caches the outputs of frozen blocks: whether the cache pays, its files on the disk, and how training uses it."""

"""Studies: which strategy on this data, and is it worth it."""

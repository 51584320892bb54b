"""Studies: which strategy and which rates on this data, and is it worth it."""

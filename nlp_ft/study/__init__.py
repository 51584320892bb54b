"""Studies: what is learned about a recipe by training it more than once."""

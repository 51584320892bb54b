"""Searches settings: the space of a recipe, the trials, and what they found."""

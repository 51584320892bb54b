"""Loads a run folder to predict for new inputs and to evaluate it on labelled rows."""

"""Trains a model: `run.py` tells the course of a run, `build.py` makes its objects, `loop.py` is the training loop."""

"""The training loop, its parts, and the one place that puts them together (`run.py`)."""

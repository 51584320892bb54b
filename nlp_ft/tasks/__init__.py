"""The tasks, one file for each, and what they share: losses, metrics, baselines and outputs."""

"""The audit of a training: its report, and its checks of optimizer groups, learning rates, modules and wrappers."""

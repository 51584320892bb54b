"""The verdict on a run: what went wrong, why, and which setting to change."""

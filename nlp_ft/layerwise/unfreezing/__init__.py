"""Unfreezing: schedules of phases, triggers that begin them, plans for a run, and what carries them out."""

"""Which layers train when: schedule, triggers, plan for a run, and what carries it out."""

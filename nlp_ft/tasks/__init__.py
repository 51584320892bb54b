"""What is learned: one file a task, and what tasks share."""

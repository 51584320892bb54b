"""What is wrong with the groups, modes and wrappers of a training: the report, and its checks by subject."""

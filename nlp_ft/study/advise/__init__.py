"""Advises on a strategy: the textbook's answer, what short measurements on the data say, and both together."""

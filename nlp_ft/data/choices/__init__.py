"""Prompts with candidates, of which one is right: reading, encoding, batches, report."""

"""A run folder, loaded: predictions, evaluations, files in and out."""

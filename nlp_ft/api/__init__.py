"""nlp_ft without YAML: `fit` and `load` for Python and notebooks, drafts of recipes, and lists of runs."""

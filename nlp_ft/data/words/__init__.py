"""Words with tags: reading them from lists, CoNLL files or character spans; spans of tags; tokens and windows."""

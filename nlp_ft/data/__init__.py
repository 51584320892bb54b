"""From files, folders and Hub ids to tokenized splits and batches."""

"""Reads files, folders and Hub data sets, and makes encoded splits and batches of them."""

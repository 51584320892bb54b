"""The one exception of the readers of files; who knows the file's name makes a `DataError` of it."""


class UnreadableError(Exception):
    """What is wrong with the content of a file, and where in it."""

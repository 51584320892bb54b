"""The exception that all readers of files raise; a caller that knows the file's name turns it into a `DataError`."""


class UnreadableError(Exception):
    """The content of a file cannot be read; the message says what is wrong and where in the file."""

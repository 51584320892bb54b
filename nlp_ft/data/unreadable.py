"""Why data cannot be read: the exception of all readers of files, and the cause of other libraries' exceptions."""


class UnreadableError(Exception):
    """The content of a file cannot be read; the message says what is wrong and where in the file.

    The reader's caller, which knows the name of the file, turns it into a `DataError`.
    """


def root_cause(error: BaseException) -> str:
    """Return the first line of the message of the innermost exception, at most 300 characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]

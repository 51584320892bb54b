"""The exceptions of nlp_ft. All are `ValueError`s, because their cause is something that the user wrote or named.

NlpFtError
├── RecipeError       a recipe that cannot be read or does not make sense; lists every problem
├── DataError         a data set that cannot be read, or whose content cannot be trained on
├── ModelError        a model that cannot be found, loaded, or given the asked pooling or head
├── LayerMapError     a parameter without a layer, or an architecture that cannot be mapped
├── UnfreezeError     phases of training that do not make sense, or do not fit into the run
├── TrainingError     a training that cannot start or go on (precision, optimizer, tracker, loss)
│   └── DivergedError     its loss has become NaN or infinite
├── MachineError      an environment variable or a launch that cannot be used
├── HubError          a push to the Hub that is not possible, or did not succeed
└── RunFolderError    a run folder that is in use, read-only, full, or not a run
    └── FolderInUseError   it is in use: another process writes it at this moment

`Interrupted` is not one of them: a signal ended the run.
"""

import unicodedata
from collections.abc import Iterable

_CONTROLS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of controls, invisible marks, lone surrogates, and separators of lines."""


def printable(text: str, keep: str = "") -> str:
    """Escape control and invisible characters, as in `\\x1b`, `\\n` or `\\u200b`, so that a text stays on its line.

    Use it wherever a foreign text (a label, a name, a row) reaches a terminal or a message: unescaped, it could colour,
    delete or forge lines.

    Args:
        text: any text.
        keep: control characters to keep, such as the line breaks of a message of several lines.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in keep or unicodedata.category(char) not in _CONTROLS else ascii(char)[1:-1] for char in text
    )


def listed(names: Iterable[str], most: int = 20) -> str:
    """List names on one line, as `a, b and 3 more`: at most `most` names, long ones shortened."""
    found = [name if len(name) <= 200 else f"{name[:200]}..." for name in names]
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


class NlpFtError(ValueError):
    """Base of every error that the user can fix; its message is printable, whatever it quotes."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message), keep="\n"))


class RecipeError(NlpFtError):
    """A recipe that cannot be read or does not make sense."""


class DataError(NlpFtError):
    """A data set that cannot be read, or whose content cannot be trained on; the message is always one line."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))


class ModelError(NlpFtError):
    """A model that cannot be found, loaded, or given the asked pooling or head."""


class LayerMapError(NlpFtError):
    """A parameter without a layer, or an architecture that cannot be mapped."""


class UnfreezeError(NlpFtError):
    """Phases of training that do not make sense, or do not fit into the run."""


class TrainingError(NlpFtError):
    """A training that cannot start or go on."""


class DivergedError(TrainingError):
    """A training whose loss has become NaN or infinite."""


class MachineError(NlpFtError):
    """An environment variable, or a launch of processes, that cannot be used."""


class HubError(NlpFtError):
    """A push to the Hugging Face Hub that is not possible, or did not succeed."""


class RunFolderError(NlpFtError):
    """A run folder that is in use, read-only, full, or not a run."""


class FolderInUseError(RunFolderError):
    """A run folder that another process writes at this moment."""


class Interrupted(KeyboardInterrupt):
    """A signal ended a run.

    Args:
        message: tells the user which checkpoint is kept.
        exit_code: 130 after SIGINT (Ctrl-C), 143 after SIGTERM, 129 after SIGHUP.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

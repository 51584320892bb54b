"""Options that several commands share, and how their values are read."""

import argparse
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TypeAlias

from nlp_ft.errors import printable
from nlp_ft.locations import expand_home

OVERRIDES = "settings that override the recipe's, such as optimizer.lr=1e-4 or strategy=head_only"


class Parser(argparse.ArgumentParser):
    """A parser whose errors escape control characters of what was typed."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_command(
    commands: Commands, name: str, command: Callable[[argparse.Namespace], int], summary: str, *examples: str
) -> argparse.ArgumentParser:
    """Add a command with its function, a sentence about it, and examples."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog="\n".join([f"example{'s' if examples[1:] else ''}:", *(f"  nlp-ft {example}" for example in examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=command)
    return parser


def count(text: str) -> int:
    """Read an option that is a whole number of 1 or more. Raises: ArgumentTypeError."""
    if re.fullmatch("0*[1-9][0-9]{0,8}", text) is None:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, got {text!r}")
    return int(text)


def positive(text: str) -> float:
    """Read an option that is a number above 0. Raises: ArgumentTypeError."""
    with suppress(ValueError):
        if 0 < (number := float(text)) < float("inf"):
            return number
    raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")


def share(text: str) -> float:
    """Read an option that is a number from 0 to 1. Raises: ArgumentTypeError."""
    with suppress(ValueError):
        if 0 <= (number := float(text)) <= 1:
            return number
    raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")


def seconds(text: str) -> float:
    """Read an option that is a time, such as `90s`, `2m30s` or `1.5h`, in seconds. Raises: ArgumentTypeError."""
    number = r"(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)"
    match = re.fullmatch(f"{number}h)?{number}m)?{number}s)?", text.strip())
    found = sum(float(part or 0) * unit for part, unit in zip(match.groups(), (3600, 60, 1))) if match else 0.0
    if not found:
        raise argparse.ArgumentTypeError(f"must be a time such as 90s, 20m or 1.5h, got {text!r}")
    return found


def shard(text: str) -> tuple[int, int]:
    """Read an option that is a part of several, such as `2/5`. Raises: ArgumentTypeError."""
    match = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text.strip())
    number, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= of:
        raise argparse.ArgumentTypeError(f"must be K/N, the K-th of N parts, such as 2/5, got {text!r}")
    return number, of


def path(text: str) -> str:
    """Read an option that is a path; a `~` that the shell did not expand means the home folder."""
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"must be a path, got {text!r}")
    try:
        return expand_home(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be {error}, got {text!r}") from None


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add a recipe, and the settings that override its own."""
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file")
    parser.add_argument("overrides", metavar="key=value", nargs="*", default=[], help=OVERRIDES)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the option that lets Python code of a run folder run."""
    trust_help = "run Python code from the run folder; use it only if you trust the author"
    parser.add_argument("--trust-remote-code", action="store_true", help=trust_help)


def add_min_confidence(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Add the option that leaves out predictions that are not sure enough."""
    parser.add_argument("--min-confidence", type=share, metavar="PROBABILITY", help=help_text)


def add_level(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how much is shown."""
    level = parser.add_mutually_exclusive_group()
    store: dict[str, Any] = {"dest": "level", "action": "store_const", "default": "normal"}
    quiet_help = "show the result, warnings and errors alone: no progress, no tables before it"
    level.add_argument("--quiet", const="quiet", help=quiet_help, **store)
    level.add_argument("--verbose", const="verbose", help="show settings, versions and library messages, too", **store)

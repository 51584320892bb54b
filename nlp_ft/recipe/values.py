"""The kinds of value that a recipe holds: numbers that are numbers, texts and places that are not blank."""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from nlp_ft.durations import Duration
from nlp_ft.locations import expand_home

INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
"""Unicode categories of controls, invisible marks and blanks."""
LONGEST_TEXT = 4096
LONGEST_PATTERN = 1000
MOST_LAYERS = 10_000


def refusal(expected: str) -> PydanticCustomError:
    """The error of a value that `must be EXPECTED`."""
    # In braces pydantic would look for values.
    return PydanticCustomError("nlp_ft", "{expected}", {"expected": expected})


def _visible(text: str) -> str:
    if all(unicodedata.category(char) in INVISIBLE for char in text):
        raise refusal("a text that is not blank")
    if "\0" in text:
        raise refusal("a text without NUL characters")
    return text


def _place(text: str) -> str:
    try:
        return expand_home(text)
    except ValueError as error:
        raise refusal(str(error)) from None


def _folder(text: str) -> str:
    if any(unicodedata.category(char) == "Cc" for char in text):
        raise refusal("a path without control characters")
    return text


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise refusal(f"a regular expression ({error})") from None
    return text


Whole = Annotated[int, Field(strict=True)]
"""A whole number; `true` and `3.0` are none. Each field says its bounds, also the upper one."""
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A finite number; `true` is none. Each field says its bounds, also the upper one."""
Text = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_visible)]
"""A text that shows."""
Place = Annotated[Text, AfterValidator(_place)]
"""A path or a name; `~/` is the home folder, and `$NAME` is refused."""
Folder = Annotated[Place, AfterValidator(_folder)]
"""The path of a folder that will be made."""
Pattern = Annotated[str, Field(min_length=1, max_length=LONGEST_PATTERN), AfterValidator(_pattern)]
"""A regular expression of Python."""
Paths = Place | list[Place]
DurationField = Annotated[
    Duration,
    BeforeValidator(lambda value: value if isinstance(value, Duration) else Duration.parse(value)),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": r"^\d+(\.\d+)?\s*(ep|st|%)$"}),
]
"""`3ep`, `200st` or `10%`."""

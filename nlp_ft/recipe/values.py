"""The types of the values in a recipe: finite numbers, texts and paths that are not blank, durations."""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from nlp_ft.durations import FORM, Duration
from nlp_ft.locations import expand_home

INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
"""Unicode categories of controls, invisible marks and blanks."""
LONGEST_TEXT = 4096
LONGEST_PATTERN = 1000
"""Characters."""
MOST_ROWS = 999_999_999
"""Most rows that a recipe may draw."""
MOST_LAYERS = 10_000
"""Largest layer id, and number of blocks, that a recipe may name."""


def refusal(expected: str) -> PydanticCustomError:
    """The error whose message is: KEY must be EXPECTED, got VALUE."""
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


def _train_rows(value: object) -> int | str:
    is_count = type(value) is int and 1 <= value <= MOST_ROWS
    if is_count or (isinstance(value, str) and re.fullmatch("[1-9][0-9]{0,8}/class", value)):
        return value  # type: ignore[return-value]  # an int or a text, as just seen
    raise refusal("a number of rows such as 1000, or of each class such as 10/class")


def rows_per_class(train_rows: str) -> int:
    """The 10 of `10/class`."""
    return int(train_rows.removesuffix("/class"))


Whole = Annotated[int, Field(strict=True)]
"""A whole number; `true` and `3.0` are refused. Each field gives its lower and upper bound."""
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A finite number; `true` is refused. Each field gives its lower and upper bound."""
Text = Annotated[str, Field(max_length=LONGEST_TEXT), AfterValidator(_visible)]
"""A text with at least one visible character."""
Place = Annotated[Text, AfterValidator(_place)]
"""A path or a name; `~/` becomes the home folder, and variables such as `$NAME` are refused."""
Folder = Annotated[Place, AfterValidator(_folder)]
"""The path of a folder that the run makes."""
Pattern = Annotated[str, Field(min_length=1, max_length=LONGEST_PATTERN), AfterValidator(_pattern)]
"""A regular expression in Python's syntax."""
Paths = Place | list[Place]
TrainRows = Annotated[
    int | str,
    BeforeValidator(_train_rows),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MOST_ROWS},
                {"type": "string", "pattern": "^[1-9][0-9]{0,8}/class$"},
            ]
        }
    ),
]
"""How many rows of train to draw, such as 1000; or of each class, such as `10/class`."""
DurationField = Annotated[
    Duration,
    BeforeValidator(lambda value: value if isinstance(value, Duration) else Duration.parse(value)),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": f"^{FORM}$"}),
]
"""A duration as a recipe writes it: `3ep`, `200st` or `10%`."""
MinDelta = Annotated[
    Real,
    Field(
        ge=0,
        le=1000,
        description="A value counts as better only if it improves by more than this, in the unit of the metric.",
    ),
]

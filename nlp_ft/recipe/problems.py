"""The problems of a recipe in plain words: the key, what was expected, its value, and the likely remedy."""

import re
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from nlp_ft.errors import printable
from nlp_ft.recipe import RECIPES, Recipe
from nlp_ft.suggest import did_you_mean, nearest

BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
OF_RIGHT_KIND = ("nlp_ft", "string_too_short", "string_too_long", "string_unicode", "finite_number")
"""Pydantic's types of error for a value that has the right type, but is refused for its content."""
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a section of `key: value` lines",
    "model": "a section of `key: value` lines",
}

OTHER_TASKS = {
    "fill_mask": "pretraining",
    "image_segmentation": "an output for each pixel",
    "object_detection": "boxes in images",
    "summarization": "writing text",
    "text_generation": "writing text",
    "translation": "writing text",
}
"""Tasks that other libraries have, and what they learn; no other name was meant."""
OTHER_NAMES = {
    "extractive_question_answering": "question_answering",
    "named_entity_recognition": "token_classification",
    "ner": "token_classification",
    "part_of_speech_tagging": "token_classification",
    "qa": "question_answering",
    "regression": "text_regression",
    "sentiment_analysis": "text_classification",
    "sequence_classification": "text_classification",
}
"""Names of other libraries for tasks that there are."""
LONGEST = 1000
"""Most characters of one problem."""


def problems_of(error: ValidationError, recipe: type[Recipe]) -> list[str]:
    """One line for each problem, each once, in the order of the recipe's fields.

    Args:
        error: what pydantic found.
        recipe: the class that refused the values.
    """
    by_path: dict[str, list[Any]] = {}
    for details in error.errors():
        by_path.setdefault(".".join(_path_of_fields([str(part) for part in details["loc"]], recipe)), []).append(
            details
        )
    problems = []
    for path, found in by_path.items():
        # One member of a union was meant where an item inside of it is wrong.
        if any(other.startswith(f"{path}.") for other in by_path) and found[0]["type"] in (
            "literal_error",
            "string_type",
        ):
            continue
        # The member of a union whose kind the value has says what is wrong with it.
        found = [details for details in found if details["type"] in OF_RIGHT_KIND] or found
        if len(found) > 1 and all(details["type"] not in ("extra_forbidden", "missing") for details in found):
            expected = " or ".join(dict.fromkeys(_expectation(d, [], recipe).removeprefix("must be ") for d in found))
            near = next((hint for details in found if (hint := _likely(details))), "")
            problems.append(f"{path} must be {expected}, got {shown(found[0]['input'])}{near}")
        else:
            problems += [_problem(details, recipe) for details in found]
    return list(dict.fromkeys(_one_line(problem) for problem in problems))


def _one_line(problem: str) -> str:
    """The problem on one line, shortened: names and values may be long or hold line breaks."""
    text = printable(problem)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def _problem(details: Any, recipe: type[Recipe]) -> str:
    path = [str(part) for part in details["loc"]]
    fields = ".".join(_path_of_fields(path, recipe))
    if details["type"] == "extra_forbidden":
        return f"{'.'.join(path)} is not a key of a recipe{_key_meant(path, recipe)}"
    if details["type"] == "missing":
        field = _field(path, recipe)
        return f"{fields} is missing: {field.description if field else 'it must be given'}"
    if details["type"] == "value_error":
        text = str(details["ctx"]["error"])
        # A check of one value begins with "must"; a check over several fields names them itself.
        if text.startswith("must"):
            text, _, hint = text.partition("; did you mean")
            return f"{fields} {text}, got {shown(details['input'])}" + (f"; did you mean{hint}" if hint else "")
        return f"{fields}.{text}" if fields else text
    return f"{fields} {_expectation(details, path, recipe)}, got {shown(details['input'])}{_likely(details)}"


def _expectation(details: Any, path: Sequence[str], recipe: type[Recipe]) -> str:
    context = details.get("ctx", {})
    if "expected" in context:
        return f"must be {context['expected']}"
    if details["type"] == "string_unicode":
        return "must be a text without lone surrogates"
    if details["type"] in ("too_short", "too_long", "string_too_short", "string_too_long"):
        low, high = context.get("min_length"), context.get("max_length")
        count = high if low is None else low
        unit = "character" if details["type"].startswith("string") else "item"
        return f"must have at {'most' if low is None else 'least'} {count} {unit}{'s' if count > 1 else ''}"
    limits = dict(context)
    field = _field(_path_of_fields(path, recipe), recipe)
    for constraint in field.metadata if field else []:
        limits |= {key: getattr(constraint, key) for key in BOUNDS if hasattr(constraint, key)}
    if not context.keys() & {*BOUNDS} and not (details["type"] == "finite_number" and limits.keys() & {*BOUNDS}):
        kind = KINDS.get(details["type"].split("_")[0])
        of_texts = " of texts" if kind == "a list" and "list" in str(details["loc"][-1]) else ""
        return f"must be {kind}{of_texts}" if kind else "must be " + details["msg"].removeprefix("Input should be ")
    low, high = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    if low is None or high is None:
        return "must be " + " and ".join(f"{BOUNDS[key]} {limits[key]:g}" for key in BOUNDS if key in limits)
    return f"must be in {'[' if 'ge' in limits else '('}{_number(low)}, {_number(high)}{']' if 'le' in limits else ')'}"


def _number(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def task_hint(name: object) -> str:
    """Say that a task is not one of nlp_ft's, or which name was meant."""
    known = str(name).lower().replace("-", "_")
    if known in OTHER_TASKS:
        return f"; nlp_ft does not learn {OTHER_TASKS[known]}, and no other task takes its place"
    near = OTHER_NAMES.get(known) or nearest(name, RECIPES, cutoff=0.75)
    return f"; did you mean {near}?" if near else ""


def _likely(details: Any) -> str:
    """A hint at the value that was meant: `0.9` for `9.0` where 1 is the most, or the nearest of the admitted names."""
    value, context = details["input"], details.get("ctx", {})
    if tuple(details["loc"]) == ("task",):
        return task_hint(value)
    if context.get("le", context.get("lt")) == 1 and isinstance(value, int | float) and 1 < value < 100:
        return f"; did you mean {value / (10 if value < 10 else 100):g}?"
    if details["type"] == "string_type" and isinstance(value, bool | int | float):
        return "; put it in quotes"
    if details["type"] in ("int_type", "float_type") and (number := _number_in(value)) is not None:
        return f"; did you mean {number}?"
    return did_you_mean(value, re.findall(r"'([^']*)'", str(context.get("expected", ""))))


def _number_in(value: Any) -> str | None:
    """The number that was meant, such as `128` for `128.0` and `3` for the text `'3'`; None if there is none."""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else None
    is_number = isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]{1,15}(\.[0-9]{1,15})?(e[-+]?[0-9]{1,3})?", value)
    return value if is_number else None


def shown(value: Any) -> str:
    """A value as Python writes it, shortened to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """List the section classes in the type of a field, such as that of `UnfreezeSection | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in sections_in(inner)]


def _field(path: Sequence[str], recipe: type[Recipe]) -> FieldInfo | None:
    models: list[type[BaseModel]] = [recipe]
    field = None
    for part in path:
        field = models[0].model_fields.get(part) if models else None
        models = sections_in(field.annotation) if field else []
    return field


def _path_of_fields(path: Sequence[str], recipe: type[Recipe]) -> list[str]:
    """The path without the parts that pydantic adds for the members of a union, such as `str` or `int`."""
    kept: list[str] = []
    for part in path:
        is_label = kept[-1:] == ["class_weights"] and not part.startswith(("dict[", "literal["))
        if _field([*kept, part], recipe) is not None or part.isdigit() or is_label:
            kept.append(part)
    return kept


def _key_meant(path: Sequence[str], recipe: type[Recipe]) -> str:
    path = [*path[:-1], path[-1][:100]]
    parent = _field(path[:-1], recipe)
    models = sections_in(parent.annotation) if parent else [recipe]
    keys = list(models[0].model_fields) if models else []
    of_tasks = [
        task
        for task, other in RECIPES.items()
        if len(path) > 1 and other is not recipe and _field(path, other) is not None
    ]
    if of_tasks:
        return f"; did you mean task: {of_tasks[0]}, which has it?"
    inside = [key for key in keys if key.endswith(f"_{path[-1]}")]
    if inside:
        return f"; did you mean {min(inside, key=lambda key: key.startswith('eval'))}?"
    if near := did_you_mean(path[-1], keys):
        return near
    homes = [
        f"{section}.{path[-1]}"
        for section, field in recipe.model_fields.items()
        for model in sections_in(field.annotation)
        if path[-1] in model.model_fields
    ]
    return f"; did you mean {homes[0]}?" if homes else f"; the keys here are: {', '.join(keys)}"

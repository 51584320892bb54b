"""Reading and writing the YAML of recipes: version 1.2, with limits on size, depth and types. Imports no torch."""

import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nlp_ft.errors import RecipeError, printable

LARGEST_FILE = 1_000_000
"""Most bytes of a recipe."""
MOST_VALUES, DEEPEST = 100_000, 50
"""Most values of a recipe with its aliases written out, and most levels of sections or lists inside each other."""
LONGEST_NUMBER = 100
"""Most characters of a number."""
TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Safe YAML with the scalars of YAML 1.2: `2e-5` is a number, `no` is text. A repeated key is an error."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node. Raises: ComposerError: it is nested deeper than `DEEPEST`."""
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > DEEPEST:
            problem = f"it is nested too deeply, more than {DEEPEST} sections or lists inside each other"
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, problem, mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping. Raises: ConstructorError: a key is not text, or is given twice."""
        if not isinstance(node, yaml.MappingNode):
            raise _refusal(f"a {_kind_of(node)} is no section of `key: value` lines", node)
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _refusal(f"key {_cut(repr(key))} must be text", key_node)
            if key in seen:
                raise _refusal(f"{_cut(key)} is given twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_scalar_of_form(self, node: yaml.Node) -> Any:
        """Null, true, false or a number. Raises: ConstructorError: the text does not fit its tag (`!!bool maybe`)."""
        kind = node.tag.removeprefix(TAG)
        if not isinstance(node, yaml.ScalarNode):
            raise _refusal(f"a {_kind_of(node)} is no {kind}", node)
        text = node.value
        if len(text) > LONGEST_NUMBER and kind in ("int", "float"):
            raise _refusal(f"a number of {len(text)} characters; at most {LONGEST_NUMBER} are read", node)
        if not re.fullmatch(FORMS[kind][0], text):
            raise _refusal(f"{_cut(repr(text))} is no {kind}", node)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        return int(text) if kind == "int" else float(re.sub(r"\.(inf|nan)", r"\1", text.lower()))


FORMS = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+\.?[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
"""Type of scalar -> its regular expression, and the characters that it may begin with."""
_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {
    f"{TAG}str": yaml.SafeLoader.construct_yaml_str,
    f"{TAG}seq": yaml.SafeLoader.construct_yaml_seq,
    f"{TAG}map": yaml.SafeLoader.construct_yaml_map,
    None: yaml.SafeLoader.construct_undefined,
}
for _kind, (_form, _first) in FORMS.items():
    _Loader.add_implicit_resolver(f"{TAG}{_kind}", re.compile(f"(?:{_form})\\Z"), list(_first))
    _Loader.add_constructor(f"{TAG}{_kind}", _Loader.construct_scalar_of_form)
# The empty value (`key:` alone) has no first character.
_Loader.yaml_implicit_resolvers[""] = [(f"{TAG}null", re.compile(r"\Z"))]


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or 1.2 would read as another type, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.yaml_implicit_resolvers = {
    first: [
        *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
        *_Loader.yaml_implicit_resolvers.get(first, []),
    ]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_Loader.yaml_implicit_resolvers}
}


def dump_yaml(values: Mapping[str, Any]) -> str:
    """YAML of nested dicts, in their order."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _OneLineDumper(_Dumper):
    """Writes a text with line breaks in double quotes, with its breaks as `\\n`."""


def _text_on_one_line(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if len(f"{text}.".splitlines()) > 1 else None
    return dumper.represent_scalar(f"{TAG}str", text, style=style)


_OneLineDumper.add_representer(str, _text_on_one_line)


def one_line_yaml(value: Any) -> str:
    """YAML of one value on one line, with lists and dicts in brackets; a comment may follow it."""
    # Inside of a list, so that a text is quoted as it must be between brackets.
    text: str = yaml.dump([value], Dumper=_OneLineDumper, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.strip()[1:-1]


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises: RecipeError."""
    text = _read_text(path)
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise RecipeError(
            f"{path}: must hold `key: value` lines, got {'nothing' if values is None else repr(text[:40])}"
        )
    return values


def parse_yaml(text: str, origin: str) -> Any:
    """The values of YAML text. Raises: RecipeError: it begins with the origin, then line and column."""
    origin = _cut(printable(origin), 200)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise RecipeError(f"{origin}:{where} not valid YAML: {_cut(printable(str(error.problem)), 300)}") from None
    except RecursionError:
        raise RecipeError(f"{origin}: not valid YAML: it is nested too deeply") from None
    # Some escapes of PyYAML's scanner end in a plain ValueError: "\U00110000".
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{origin}: not valid YAML: {printable(str(error).splitlines()[0])}") from None


def _read_text(path: str | Path) -> str:
    try:
        # A pipe that nobody writes to would keep `open` waiting.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise RecipeError(f"{path}: cannot be read as a recipe: it is a pipe or device, not a file")
            content = stream.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise RecipeError(f"{path}: cannot be read as a recipe: it is larger than {LARGEST_FILE:,} bytes")
        return content.decode("utf-8")
    except RecipeError:
        raise
    except FileNotFoundError:
        raise RecipeError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", error)
        raise RecipeError(f"{path}: cannot be read as a recipe: {reason}") from None


def _measure(node: yaml.Node, known: dict[int, int], depth: int = 1) -> int:
    """Number of values under a node with all aliases written out: a few lines of aliases can stand for billions."""
    if depth > DEEPEST:
        raise _refusal(f"it is nested too deeply, more than {DEEPEST} sections or lists inside each other", node)
    size = known.get(id(node))
    if size == 0:
        raise _refusal("an alias holds itself", node)
    if size is None:
        known[id(node)], size = 0, 1
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        for part in parts:
            for inner in part if isinstance(part, tuple) else (part,):
                size += _measure(inner, known, depth + 1)
        known[id(node)] = size
    if size > MOST_VALUES:
        raise _refusal(f"it holds more than {MOST_VALUES:,} values, aliases written out", node)
    return size


def _kind_of(node: yaml.Node) -> str:
    return type(node).__name__.removesuffix("Node").lower()


def _refusal(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _cut(text: str, longest: int = 60) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."

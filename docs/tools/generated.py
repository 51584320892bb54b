"""Fills the parts of the site that are made from the code, at build time: a hook of MkDocs.

A line `<!-- generated: NAME -->` in a page gives way to what the function NAME of `PARTS` returns. Imports no torch.
"""

import argparse
import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "nlp_ft"
PLACEHOLDER = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)

sys.path.insert(0, str(ROOT))

from docs.tools.key_reference import key_reference, presets_table  # noqa: E402


def commands() -> str:
    """The help of `nlp-ft` and of each of its commands, as argparse prints it."""
    from nlp_ft.cli import build_parser

    parser = build_parser()
    [subcommands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    parts = [_help("nlp-ft", parser)]
    parts += [_help(f"nlp-ft {name}", command) for name, command in subcommands.choices.items()]
    return "\n\n".join(parts)


def _help(title: str, parser: argparse.ArgumentParser) -> str:
    parser.formatter_class = _narrow(parser.formatter_class)
    return f"## `{title}`\n\n```text\n{parser.format_help().rstrip()}\n```"


def _narrow(formatter: Any) -> Callable[..., argparse.HelpFormatter]:
    return lambda prog: formatter(prog, width=80, max_help_position=26)


def files() -> str:
    """Every file of the package under its folder, each with the first sentence of its docstring."""
    folders = [PACKAGE, *sorted(path for path in PACKAGE.rglob("*") if path.is_dir() and any(path.glob("*.py")))]
    return "\n\n".join(_folder(folder) for folder in folders)


def _folder(folder: Path) -> str:
    name = folder.relative_to(ROOT).as_posix()
    lines = [f"### `{name}/`", ""]
    if purpose := first_sentence(folder / "__init__.py"):
        lines += [purpose, ""]
    members = sorted(file for file in folder.glob("*.py") if not file.name.startswith("__"))
    return "\n".join(lines + [f"- `{file.name}`: {first_sentence(file)}" for file in members])


def first_sentence(file: Path) -> str:
    """The first sentence of a module's docstring, on one line; "" where there is none."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z`])", paragraph)[0]


PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "files": files,
    "key_reference": key_reference,
    "presets": presets_table,
}


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by MkDocs for each page. Raises: KeyError for a name that is not in `PARTS`."""
    return PLACEHOLDER.sub(lambda found: PARTS[found[1]](), markdown)

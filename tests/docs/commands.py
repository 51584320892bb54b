"""Command lines of the documentation, checked: `nlp-ft` and the examples run, all others meet their own parsers."""

import argparse
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from nlp_ft.cli import build_parser, main
from nlp_ft.recipe.loader import load_recipe
from nlp_ft.recipe.yaml_reader import read_yaml
from tests.docs.blocks import ROOT


class _ParsedError(Exception):
    """A parser took the arguments."""


def check_line(line: str, run: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check one line. Raises: AssertionError, or SystemExit of a parser that refuses it."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    program, *arguments = words
    if Path(program).name == "nlp-ft":
        return run_nlp_ft(tuple(arguments)) if run else parse_nlp_ft(arguments)
    if program in ("python", "torchrun", "accelerate"):
        return LAUNCHERS[program](arguments, run, monkeypatch)
    if program == "pip":
        return check_install(arguments)
    if program == "ray":
        assert arguments == ["start", "--head"]
        return None
    if program == "sbatch":
        check_own_script(f"./{arguments[0]}", [])
        return parse_nlp_ft(["train", *arguments[1:]])
    if program == "sky":
        return check_sky(*arguments)
    assert program.startswith("./scripts/"), f"tests/docs/commands.py knows no way to check {line!r}"
    return check_own_script(program, arguments)


@cache
def run_nlp_ft(arguments: tuple[str, ...]) -> None:
    """Run a command of nlp-ft in this process, once where several blocks show it; what it wrote before is replaced."""
    overwrite = ["--overwrite"] if arguments[0] == "train" or "--output" in arguments else []
    with pytest.raises(SystemExit) as ended:
        main([*arguments, *overwrite])
    assert ended.value.code == 0


def parse_nlp_ft(arguments: list[str]) -> None:
    """Parse a command of nlp-ft, and read its recipe where it is there."""
    options = build_parser().parse_args(arguments)
    if Path(recipe := getattr(options, "recipe", "")).is_file():
        load_recipe(recipe, options.overrides)


def check_python(arguments: list[str], run: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples run as they are; the parser of any other script must take its arguments."""
    if arguments[0] == "-m":
        return parse_by_own_parser(
            lambda: runpy.run_module(arguments[1], run_name="__main__", alter_sys=True), arguments[1:], monkeypatch
        )
    script = arguments[0]
    assert (ROOT / script).is_file(), f"{script} does not exist"
    if run and script.startswith("scripts/examples/"):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", arguments)
            runpy.run_path(str(ROOT / script), run_name="__main__")
        return None
    for recipe in (word for word in arguments if word.startswith("recipes/")):
        load_recipe(ROOT / recipe, [word for word in arguments if re.match(r"[a-z_.]+=", word)])
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str((ROOT / script).parent))  # as python does
        start = partial(runpy.run_path, str(ROOT / script), run_name="__main__")
        return parse_by_own_parser(start, arguments, monkeypatch)


def parse_by_own_parser(start: Callable[[], Any], argv: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a script, and stop it where its parser has taken the arguments."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, given: Sequence[str] | None = None) -> None:
        parse(parser, given)
        raise _ParsedError

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        patch.setattr(sys, "argv", list(argv))
        with pytest.raises(_ParsedError):
            start()


def check_torchrun(arguments: list[str], run: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's launcher takes the options, and the script its own."""
    from torch.distributed.run import get_args_parser

    options = get_args_parser().parse_args(arguments)
    check_python([options.training_script, *options.training_script_args], False, monkeypatch)


def check_accelerate(arguments: list[str], run: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate's launcher takes the options, and the script is ours with a recipe that is valid."""
    from accelerate.commands.launch import launch_command_parser

    assert arguments[0] == "launch"
    options = launch_command_parser().parse_args(arguments[1:])
    assert options.config_file is None or (ROOT / options.config_file).is_file()
    assert options.training_script == "scripts/train.py"
    parse_nlp_ft(["train", *options.training_script_args])


LAUNCHERS = {"python": check_python, "torchrun": check_torchrun, "accelerate": check_accelerate}


def check_install(arguments: list[str]) -> None:
    """`pip install -e '.[extra]'` names extras that pyproject.toml has."""
    assert arguments[:2] == ["install", "-e"]
    [target] = arguments[2:]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.fullmatch(r"\.(?:\[([a-z,]+)\])?", target)
    assert extras is not None, target
    assert set(filter(None, (extras[1] or "").split(","))) <= set(project["optional-dependencies"])


def check_sky(jobs: str, launch: str, task: str, env: str, setting: str) -> None:
    """`sky jobs launch TASK.yaml --env NAME=VALUE` sets what the task wants."""
    assert (jobs, launch, env) == ("jobs", "launch", "--env")
    assert read_yaml(ROOT / task)["envs"] == {setting.partition("=")[0]: None}


def check_own_script(program: str, arguments: list[str]) -> None:
    """A shell script that bash can parse and that may be executed; settings among its arguments fit its recipe."""
    script = ROOT / program
    assert os.access(script, os.X_OK), f"{program} is no executable file"
    assert subprocess.run(["bash", "-n", script], capture_output=True).stderr == b""
    text = script.read_text(encoding="utf-8")
    overrides = [word for word in arguments if "=" in word]
    if overrides:
        load_recipe(ROOT / "recipes/quickstart.yaml", overrides)
    for word in set(arguments) - set(overrides):
        assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text), f"{program} says nothing of {word}"

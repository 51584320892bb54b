"""No broken recipe ends in a traceback, a hang, a forged line or in silence: a clear message, or the right result."""

import contextlib
import io
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nlp_ft.cli import main
from nlp_ft.errors import RecipeError
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.loader import dump_yaml, load_recipe, recipe_from_dict, recipe_to_dict
from nlp_ft.recipe.yaml_reader import parse_yaml
from tests.fuzz.recipes import Case, cases
from tests.tiny import tiny_recipe

SECONDS = 10
MOST_LINES, LONGEST_LINE = 51, 1500


@pytest.fixture
def workplace(tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `good.yaml` and its data; homes of users are here too."""
    (tmp_path / "good.yaml").write_text(dump_yaml(tiny_recipe(tmp_path, tiny_encoder)))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_cli(*arguments: str) -> tuple[object, str, str]:
    """(exit code, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as exit_info:
        main(arguments)
    return exit_info.value.code, out.getvalue(), err.getvalue()


def fault_of_message(case: Case, code: object, out: str, err: str) -> str | None:
    """What is wrong with how a refusal is told; None for nothing."""
    lines = err.split("\n")
    if (code, out, lines[-1]) != (2, "", ""):
        return f"ended with {code}, {out!r}, {err!r}"
    told = lines[:-1]
    if not 1 <= len(told) <= MOST_LINES or max(map(len, told)) > LONGEST_LINE:
        return f"{len(told)} lines, the longest of {max(map(len, told), default=0)}"
    if any(not line.startswith("error: ") or not line.isprintable() or "unexpected " in line[:20] for line in told):
        return f"no clear lines: {told}"
    is_named = any(part in err for part in case.field.split("."))
    return None if is_named else f"{case.field} is not named: {told}"


def fault_of_result(case: Case, recipe: Recipe) -> str | None:
    """What is wrong with a recipe that was taken; None for nothing."""
    if recipe_from_dict(recipe_to_dict(recipe)) != recipe:
        return "the recipe does not come back from its own dump"
    if case.value is None:
        return None
    name = case.overrides[-1].partition("=")[0]
    given: Any = parse_yaml(case.value, name)
    taken: Any = recipe_to_dict(recipe)
    for part in name.split("."):
        taken = taken[part] if taken is not None else None
    return None if _same(given, taken) else f"{given!r} was taken as {taken!r}"


def _same(given: Any, taken: Any) -> bool:
    if given is None or isinstance(given, dict):
        # The default takes the place of null, and defaults stand beside what a section was given.
        return given is None or (isinstance(taken, dict) and all(_same(given[key], taken[key]) for key in given))
    if isinstance(taken, bool) or isinstance(given, bool):
        # What YAML 1.1 calls true and false is text here, and means the same.
        return taken == {"yes": True, "no": False, "1": True, "0": False}.get(str(given), given)
    if isinstance(taken, dict):
        return bool(taken.get("name") == given)
    if isinstance(given, str) and given.startswith("~/"):
        # The name of a column stays as it is.
        return taken in (given, os.path.expanduser(given))
    return bool(given == taken) or (isinstance(given, str) and given.replace(".0", "").replace(" ", "") == taken)


def check(found: Sequence[Case], folder: Path) -> Counter[str]:
    """How the cases ended, after a proof that each ended well and that nothing was written."""
    endings: Counter[str] = Counter()
    faults = []
    before = sorted(folder.rglob("*"))
    for case in found:
        start = time.monotonic()
        file = folder / "good.yaml"
        if case.content is not None:
            file = folder / "broken.yaml"
            file.write_bytes(case.content if isinstance(case.content, bytes) else case.content.encode())
        fault: str | None
        try:
            fault = fault_of_result(case, load_recipe(file, case.overrides))
            endings["taken"] += 1
        except RecipeError:
            fault = fault_of_message(case, *run_cli("validate", str(file), "--", *case.overrides))
            endings["refused"] += 1
        if fault is None and time.monotonic() - start > SECONDS:
            fault = f"took {time.monotonic() - start:.0f} s"
        faults += [f"{case.name}: {fault}"] if fault else []
    (folder / "broken.yaml").unlink(missing_ok=True)
    assert faults == []
    assert sorted(folder.rglob("*")) == before
    return endings


def test_a_sample_of_broken_recipes_ends_in_a_clear_message_or_the_right_result(workplace: Path) -> None:
    found = cases(0, (workplace / "good.yaml").read_text())
    assert sum(check(found[:150], workplace).values()) == 150


@pytest.mark.slow
def test_every_broken_recipe_ends_in_a_clear_message_or_the_right_result(workplace: Path) -> None:
    found = cases(0, (workplace / "good.yaml").read_text())
    assert len(found) > 20_000
    endings = check(found, workplace)
    assert endings["refused"] > 18_000


@pytest.mark.slow
def test_a_recipe_that_is_taken_is_validated_to_its_end(workplace: Path) -> None:
    pytest.importorskip("torchvision")
    taken = 0
    for case in cases(1, (workplace / "good.yaml").read_text()):
        with contextlib.suppress(RecipeError):
            if case.content is None and taken < 100 and load_recipe("good.yaml", case.overrides):
                taken += 1
                code, out, err = run_cli("validate", "good.yaml", "--", *case.overrides)
                ready = (code, out, err) == (0, "good.yaml: ready to train\n", "")
                fault = None if ready else fault_of_message(Case(case.name), code, out, err)
                assert fault is None, f"{case.name}: {fault}"
    assert taken == 100

"""Every code block of README and docs/ is run, or checked as the comment above it says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nlp_ft.cli import main
from nlp_ft.recipe.loader import load_recipe
from nlp_ft.recipe.yaml_reader import dump_yaml, parse_yaml, read_yaml
from tests.docs.blocks import ALL, PAGES, ROOT, Block, blocks_of, of_language
from tests.docs.commands import check_line
from tests.docs.place import train_small
from tests.integrations.test_examples import LIGHTNING, LOOP, TRAINER, diff_lines
from tests.integrations.test_trainer_examples import EXAMPLES

CHECKS = {
    "bash": ("run", "parse"),
    "console": ("output",),
    "diff": ("run",),
    "python": ("run", "parse"),
    "text": ("run", "parse"),
    "yaml": ("run", "validate"),
}
"""Language -> the checks that there are for it."""
FIRST_PAGES = ("README.md", "docs/getting-started.md")
"""The pages whose programs and recipes run in every test run; those of the others are slow."""
PATH = re.compile(r"(?<![\w./-])(?:nlp_ft|docs|recipes|scripts|tests)/[\w./-]*")


def runs(language: str) -> list[Any]:
    """The blocks of a language as parameters of a test that runs them."""
    return [
        pytest.param(block, id=str(block), marks=[pytest.mark.slow] * (block.page not in FIRST_PAGES))
        for block in of_language(language)
        if block.check == "run"
    ]


@pytest.fixture(autouse=True)
def _in_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def test_every_block_has_a_language_and_a_check_that_there_are() -> None:
    fences = sum(page.read_text(encoding="utf-8").count("\n```") for page in PAGES)
    assert fences == 2 * len(ALL) > 100
    assert {str(block): block.check for block in ALL if block.check not in CHECKS.get(block.language, ())} == {}


def test_every_weaker_check_says_why() -> None:
    comments = [line for page in PAGES for line in page.read_text().splitlines() if line.startswith("<!-- check:")]
    assert [line for line in comments if not re.fullmatch(r"<!-- check: (output|(parse|validate); .+) -->", line)] == []
    assert len(comments) == sum(block.check != "run" for block in ALL if not block.page.startswith("CONTRIBUTING"))


@pytest.mark.parametrize("block", of_language("bash"), ids=str)
def test_commands(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in block.code.splitlines() if line.strip()]
    assert lines
    for line in lines:
        check_line(line, block.check == "run", monkeypatch)


@pytest.mark.parametrize("block", of_language("console"), ids=str)
def test_a_command_prints_what_the_page_shows(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    command, _, shown = block.code.partition("\n")
    with pytest.raises(SystemExit):
        main(command.removeprefix("$ nlp-ft ").split())
    assert capsys.readouterr().out.strip() == shown.strip()


@pytest.mark.parametrize("block", of_language("diff"), ids=str)
def test_a_diff_is_all_that_changes_in_an_example(block: Block) -> None:
    assert block.code.splitlines() in [diff_lines(name) for name in (TRAINER, LOOP, LIGHTNING, *EXAMPLES)]


@pytest.mark.parametrize("block", runs("python"))
def test_python(block: Block) -> None:
    exec(compile(block.code, str(block), "exec"), {"__name__": "__main__"})  # noqa: S102


DRAWINGS = [block for block in of_language("text") if block.check == "run"]


@pytest.mark.parametrize("block", DRAWINGS, ids=str)
def test_the_paths_in_a_drawing_exist(block: Block) -> None:
    paths = PATH.findall(block.code)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("block", of_language("python"), ids=str)
def test_python_is_python(block: Block) -> None:
    compile(block.code, str(block), "exec")


def test_python_that_is_not_run_is_an_example_whole_or_in_part() -> None:
    examples = [file.read_text() for file in (ROOT / "scripts/examples").glob("*.py")]
    shown = [block for block in of_language("python") if block.check == "parse"]
    assert shown
    assert [str(block) for block in shown if not any(block.code in text for text in examples)] == []


@pytest.mark.parametrize("block", of_language("yaml"), ids=str)
def test_recipes_are_valid_and_parts_of_recipes_with_the_rest_of_a_recipe(block: Block) -> None:
    Path("block.yaml").write_text(with_the_rest(block.code))
    assert load_recipe("block.yaml").output_dir


@pytest.mark.parametrize("block", runs("yaml"))
def test_recipes_train_and_parts_of_recipes_train_with_the_rest_of_a_recipe(block: Block) -> None:
    Path("block.yaml").write_text(with_the_rest(block.code))
    assert json.loads((train_small("block.yaml") / "summary.json").read_text())["metrics"]


def with_the_rest(code: str) -> str:
    """The code, and of mine.yaml those sections that it does not have; a recipe with an output_dir is whole."""
    values = parse_yaml(code, "block") or {}
    if "output_dir" in values:
        return code
    base = read_yaml("mine.yaml")
    return code + dump_yaml({name: section for name, section in base.items() if name not in values})


def test_what_stands_in_place_of_the_phases_length_is_taken() -> None:
    [block] = [block for block in blocks_of(ROOT / "docs/strategies.md") if "restore_best" in block.code]
    Path("unfreeze.yaml").write_text(
        "data: {train: a.csv, validation: 10%}\nmodel: {name: m}\noutput_dir: o\n" + block.code
    )
    unfreeze = load_recipe("unfreeze.yaml").strategy.unfreeze
    assert unfreeze is not None
    assert (str(unfreeze.every), unfreeze.blocks_per_phase, unfreeze.restore_best) == ("1ep", 2, True)
    others = re.findall(r"# (plateau|loss_below|layers): (.*?) +instead of", block.code)
    assert [name for name, _ in others] == ["plateau", "loss_below", "layers"]
    for name, value in others:
        freed = ["strategy.unfreeze.order=top_down", "strategy.unfreeze.blocks_per_phase=1"] * (name == "layers")
        load_recipe("unfreeze.yaml", [f"strategy.unfreeze.{name}={value}", "strategy.unfreeze.every=null", *freed])


def test_the_first_recipe_for_images_is_valid_as_it_is() -> None:
    assert load_recipe("flowers.yaml").task == "image_classification"

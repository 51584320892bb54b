"""What the README shows works as it stands, but for the model's name and the folders."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from nlp_ft.cli import build_parser
from nlp_ft.recipe.loader import load_recipe, recipe_from_dict
from nlp_ft.recipe.presets import STRATEGY_PRESETS
from nlp_ft.training.run import train
from tests.tiny import tiny_recipe
from tests.tiny_images import write_images

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_whole_recipe_trains_on_ones_own_csv(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, _, _ = blocks("yaml")
    tiny_recipe(tmp_path, tiny_encoder)
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text.replace("bert-base-uncased", str(tiny_encoder)))
    train(load_recipe("mine.yaml"))
    assert Path("runs/mine/summary.json").exists()


def test_the_settings_of_unfreezing_are_taken_as_they_stand_and_in_place_of_each_other(tmp_path: Path) -> None:
    _, strategy, _ = blocks("yaml")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("data: {train: a.csv, validation: 10%}\nmodel: {name: m}\noutput_dir: o\n" + strategy)
    unfreeze = load_recipe(recipe).strategy.unfreeze
    assert unfreeze is not None
    assert (str(unfreeze.every), unfreeze.blocks_per_phase, unfreeze.restore_best) == ("1ep", 2, True)
    for other in re.findall(r"# (plateau|loss_below|layers): (.*?) +in place", strategy):
        kept = (
            [] if other[0] != "layers" else ["strategy.unfreeze.order=top_down", "strategy.unfreeze.blocks_per_phase=1"]
        )
        load_recipe(recipe, [f"strategy.unfreeze.{other[0]}={other[1]}", "strategy.unfreeze.every=null", *kept])


def test_the_table_of_strategies_names_every_preset() -> None:
    [table] = re.findall(r"\| `strategy:` .*?\n\n", README, re.DOTALL)
    assert set(re.findall(r"^\| `(?:\{name: )?(\w+)", table, re.MULTILINE)) - {"strategy"} == set(STRATEGY_PRESETS)


def test_the_recipe_for_images_trains_and_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, images = blocks("yaml")
    monkeypatch.chdir(tmp_path)
    write_images(Path("flowers/train"), 10)
    write_images(Path("flowers/test"), 2, first_seed=500)
    Path("mine.yaml").write_text(images)
    train(load_recipe("mine.yaml", ["model.weights=null", "data.image_size=32", "training.duration=1st"]))
    codes = [code for code in blocks("python") if "runs/flowers" in code]
    assert len(codes) == 2
    run_each(code.replace("flowers/test/rose/1.jpg", "flowers/test/red/00.png") for code in codes)


def run_each(codes: Iterable[str]) -> None:
    """Run pieces of code in one new process, each with names of its own."""
    whole = "\n".join(f"exec({code!r}, {{}})" for code in codes)
    result = subprocess.run([sys.executable, "-c", whole], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


def test_the_python_blocks_run(tmp_path: Path, tiny_encoder: Path) -> None:
    train(recipe_from_dict(tiny_recipe(tmp_path, tiny_encoder)))
    settings = {
        "bert-base-uncased": str(tiny_encoder),
        "runs/quickstart": str(tmp_path / "run"),
        "runs/mine": str(tmp_path / "run"),
        "labelled.csv": str(tmp_path / "test.csv"),
        "lowest_trainable_layer=7": "lowest_trainable_layer=2",
    }
    codes = [code for code in blocks("python") if "runs/flowers" not in code]
    assert len(codes) >= 3
    for shown, here in settings.items():
        assert any(shown in code for code in codes)
        codes = [code.replace(shown, here) for code in codes]
    run_each(codes)


def test_every_file_of_the_package_stands_in_the_tree() -> None:
    [tree] = [block for block in blocks("text") if block.startswith("nlp_ft/")]
    files = {file.name for file in (ROOT / "nlp_ft").rglob("*.py") if file.name not in ("__init__.py", "__main__.py")}
    assert {name for name in files if not re.search(rf"(?<![a-z_]){name}", tree)} == set()


def test_every_command_of_the_readme_is_one_that_the_parser_takes() -> None:
    commands = [line for block in blocks("bash") for line in block.splitlines() if "nlp-ft " in line]
    assert len(commands) == 8
    for line in commands:
        words = re.findall(r'"[^"]*"|\S+', line.partition("nlp-ft ")[2].partition("  #")[0])
        build_parser().parse_args([word.strip('"') for word in words])

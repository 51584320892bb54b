"""The recipes that are made for `nlp-ft compare`: they favour no strategy, and their data are read where they are."""

import re
from pathlib import Path

import pytest

from nlp_ft.cli import main
from nlp_ft.recipe.loader import load_recipe
from nlp_ft.recipe.yaml_reader import read_yaml

ROOT = Path(__file__).parents[2]
ROWS = {
    "banking77": "770",
    "cifar10": "5,400",
    "clinc150": "7,500",
    "goemotions": "3,000",
    "sst2": "1,000",
    "stsb": "1,000",
    "wnut17": "3,394",
}
"""Data set -> rows of train."""


def test_each_recipe_to_compare_is_known_here() -> None:
    assert sorted(file.stem for file in (ROOT / "recipes").glob("compare_*.yaml")) == [
        f"compare_{name}" for name in ROWS
    ]


@pytest.mark.parametrize("name", ROWS)
def test_it_has_all_splits_and_favours_no_strategy(name: str) -> None:
    file = ROOT / f"recipes/compare_{name}.yaml"
    recipe = load_recipe(file)
    assert recipe.data.validation is not None
    assert recipe.data.test is not None
    assert {"strategy", "optimizer", "seed"} & read_yaml(file).keys() == set()
    assert file.read_text().startswith(f"# nlp-ft compare recipes/compare_{name}.yaml\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_it_is_valid_and_trains_on_so_many_rows(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (ROOT.parent / "shared/data" / name).exists():
        pytest.skip(f"needs ../shared/data/{name}")
    monkeypatch.chdir(ROOT)
    # The weights would be downloaded.
    overrides = ["model.weights=null"] if name == "cifar10" else []
    with pytest.raises(SystemExit) as end:
        main(["validate", f"recipes/compare_{name}.yaml", *overrides])
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert re.findall(r"^train +([\d,]+) ", out, re.MULTILINE)[0] == ROWS[name]

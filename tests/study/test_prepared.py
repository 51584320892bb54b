"""A comparison whose cells another scheduler trains: their recipes, and the Slurm script of the documentation."""

import os
import subprocess
from pathlib import Path

import pytest

from nlp_ft.cli import main
from nlp_ft.errors import RecipeError
from nlp_ft.study.cells import make_plan
from nlp_ft.study.compare import prepare
from tests.docs.blocks import ROOT, blocks_of
from tests.study.test_compare import write_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> str:
    return write_recipe(tmp_path_factory.mktemp("comparison"), tiny_encoder)


def test_the_recipes_are_written_and_nothing_is_trained(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--strategies", "full,llrd", "--rates", "1", "--seeds", "2", "--output", str(tmp_path / "c")]
    with pytest.raises(SystemExit) as end:
        main(["compare", recipe, *options, "--executor", "none"])
    assert end.value.code == 0
    names = ["full-x1-seed0", "full-x1-seed1", "llrd-x1-seed0", "llrd-x1-seed1"]
    assert sorted(file.name for file in (tmp_path / "c/cells").iterdir()) == [f"{name}.yaml" for name in names]
    assert capsys.readouterr().out.endswith(f"{tmp_path}/c/cells/full-x1-seed0.yaml --resume\n")


def test_equal_seconds_need_runs_first(recipe: str, tmp_path: Path) -> None:
    plan = make_plan(recipe, [], tmp_path / "c", ["full"], equal="seconds")
    with pytest.raises(RecipeError, match="--executor none: --equal seconds trains a run of each strategy first"):
        prepare(plan)


def test_a_budget_needs_training(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["compare", recipe, "--output", str(tmp_path / "c"), "--executor", "none", "--budget", "1h"])
    assert capsys.readouterr().err.startswith("error: --executor none: nothing is trained that a --budget could end")
    assert not (tmp_path / "c").exists()


def test_the_slurm_script_of_the_documentation_trains_the_cell_of_its_number(tmp_path: Path) -> None:
    [script] = [block.code for block in blocks_of(ROOT / "docs/comparing.md") if block.code.startswith("#!/bin/bash")]
    cells = tmp_path / "runs/mine-compare/cells"
    cells.mkdir(parents=True)
    for name in ("full-x1-seed0", "full-x1-seed1", "llrd-x1-seed0"):
        (cells / f"{name}.yaml").touch()
    program = tmp_path / "nlp-ft"
    program.write_text('#!/bin/bash\necho "$@"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": "1"}
    ran = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.stdout == "train runs/mine-compare/cells/full-x1-seed1.yaml --resume\n"

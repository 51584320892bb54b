"""The wheel: what is in it, and that it works where the checkout is not."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import nlp_ft
from nlp_ft.recipe.loader import dump_yaml
from tests.tiny import tiny_recipe

ROOT = Path(__file__).parent.parent
TEMPLATES = ("base.html", "parts.html", "run.html", "run.md", "runs.html", "runs.md", "study.html")
PARTS = ("nlp_ft", "scripts", "tests", "recipes", "pyproject.toml", "README.md", "LICENSE")
USE = """
from typing import Any, assert_type
import torch
import nlp_ft
recipe = nlp_ft.load_recipe("recipe.yaml")
assert_type(recipe.output_dir, str)
assert_type(nlp_ft.train(recipe), dict[str, Any])
assert_type(nlp_ft.LayerMap.from_model(torch.nn.Linear(1, 1)), nlp_ft.LayerMap)
nlp_ft.fit
"""


def run(command: list[str], folder: Path) -> str:
    """What a command prints that runs in a folder, without the checkout on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the checkout, so that nothing of an earlier build comes into it."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in PARTS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / "source")
    build = ["-m", "pip", "wheel", "./source", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "."]
    run([sys.executable, *build], folder)
    [file] = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment, which has the wheel, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder / "venv")
    [site] = (folder / "venv").glob("lib/python*/site-packages")
    python = str(folder / "venv/bin/python")
    run([sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", str(wheel)], folder)
    # A .pth file that is named in a .pth file is not read: an editable install of the checkout stays unseen.
    (site / "libraries.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    return folder / "venv/bin"


def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
        said = archive.read(metadata).decode()
    sources = {str(file.relative_to(ROOT)) for file in (ROOT / "nlp_ft").rglob("*.py")}
    data = {"nlp_ft/py.typed", "nlp_ft/recipe/recipe.schema.json", "nlp_ft/examples/support_messages.csv"}
    data |= {f"nlp_ft/report/templates/{name}.j2" for name in TEMPLATES}
    assert {name for name in names if ".dist-info/" not in name} == sources | data
    assert f"{metadata.removesuffix('METADATA')}licenses/LICENSE" in names
    assert re.findall(r"^(?:Name|Version|License-Expression): (.*)$", said, re.MULTILINE) == [
        "nlp-ft",
        nlp_ft.__version__,
        "Apache-2.0",
    ]


def test_the_installed_command_is_that_of_the_wheel(programs: Path, tmp_path: Path) -> None:
    assert run([str(programs / "nlp-ft"), "--version"], tmp_path).split()[-1] == nlp_ft.__version__
    place = run([str(programs / "python"), "-c", "import nlp_ft; print(nlp_ft.__file__)"], tmp_path)
    assert Path(place.strip()).is_relative_to(programs.parent)


@pytest.mark.slow
def test_the_installed_command_validates_trains_and_predicts(
    programs: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_yaml(tiny_recipe(tmp_path, tiny_encoder)))
    command = str(programs / "nlp-ft")
    run([command, "validate", "recipe.yaml"], tmp_path)
    run([command, "train", "recipe.yaml"], tmp_path)
    assert re.search(r"\b(animal|colour|size)\b", run([command, "predict", "run", "the cat"], tmp_path))


@pytest.mark.slow
def test_type_checkers_know_the_public_names_of_the_installed_package(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(USE)
    command = [sys.executable, "-m", "mypy", "--python-executable", str(programs / "python"), "use.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    # A name that a type checker takes for Any would fail its assert_type here.
    assert re.findall(r"use\.py:\d+: (.*)", result.stdout) == ['error: Module has no attribute "fit"  [attr-defined]']

"""What the code imports is what pyproject.toml declares, where it declares it; and no extra is needed by the core."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = {"nlp_ft", "tests", "docs"}
DISTRIBUTIONS = {"PIL": "pillow", "iterstrat": "iterative-stratification", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Imported name -> distribution, where the two differ by more than a hyphen."""
PART_OF = {"pydantic_core": "pydantic"}
"""Each release of pydantic wants exactly one of pydantic_core."""
CORE = (
    "nlp_ft.cli",
    "nlp_ft.training.inspection",
    "nlp_ft.integrations.hf_trainer",
    "nlp_ft.layerwise",
    "nlp_ft.models.configs",
    "nlp_ft.models.image_classifier",
    "nlp_ft.models.pooled_classifier",
    "nlp_ft.prediction.predict",
    "nlp_ft.prediction.text_run",
    "nlp_ft.recipe.loader",
    "nlp_ft.tasks.multi_label_classification",
    "nlp_ft.tasks.text_classification",
    "nlp_ft.tasks.text_regression",
    "nlp_ft.training.run",
)
"""What someone imports who has installed no extra."""


def names_of(requirements: Iterable[str]) -> set[str]:
    matches = (re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in requirements)
    return {match[0].lower().replace("_", "-") for match in matches if match}


DEPENDENCIES = names_of(PROJECT["dependencies"])
EXTRAS = {extra: names_of(listed) for extra, listed in PROJECT["optional-dependencies"].items()}
OPTIONAL = set().union(*(names for extra, names in EXTRAS.items() if extra not in ("docs", "test"))) - DEPENDENCIES


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def distributions(file: Path) -> set[str]:
    """Third-party distributions that a file imports, at its top or inside a function."""
    modules = {name.partition(".")[0] for name in imported(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))}
    # A script finds those beside it.
    beside = {other.stem for other in file.parent.glob("*.py")} if "scripts" in file.parts else set()
    outside = modules - OURS - set(sys.stdlib_module_names) - beside
    return {DISTRIBUTIONS.get(name, PART_OF.get(name, name)).lower().replace("_", "-") for name in outside}


def undeclared(files: Iterable[Path], declared: set[str]) -> list[str]:
    return [f"{file.relative_to(ROOT)}: {name}" for file in files for name in sorted(distributions(file) - declared)]


def test_the_package_imports_only_its_dependencies_and_its_extras() -> None:
    assert undeclared((ROOT / "nlp_ft").rglob("*.py"), DEPENDENCIES | OPTIONAL) == []


def test_the_script_that_people_launch_imports_only_dependencies() -> None:
    assert undeclared([ROOT / "scripts/train.py"], DEPENDENCIES) == []


def test_the_examples_import_only_dependencies_and_extras() -> None:
    assert undeclared((ROOT / "scripts/examples").glob("*.py"), DEPENDENCIES | OPTIONAL) == []


@pytest.mark.parametrize(("folder", "extra"), [("scripts", "test"), ("tests", "test"), ("docs", "docs")])
def test_scripts_tests_and_docs_import_only_dependencies_and_their_extra(folder: str, extra: str) -> None:
    files = [file for file in (ROOT / folder).rglob("*.py") if file.parent != ROOT / "scripts/examples"]
    assert undeclared(files, DEPENDENCIES | EXTRAS.get(extra, set())) == []


def test_every_dependency_is_imported() -> None:
    files = [*(ROOT / "nlp_ft").rglob("*.py"), ROOT / "scripts/train.py"]
    assert DEPENDENCIES - set().union(*map(distributions, files)) == set()


def test_extras_that_share_a_package_want_the_same_versions_of_it() -> None:
    wanted = {requirement for requirements in PROJECT["optional-dependencies"].values() for requirement in requirements}
    versions = {name: {text for text in wanted if names_of([text]) == {name}} for name in names_of(wanted)}
    assert {name: texts for name, texts in versions.items() if len(texts) > 1} == {}


def top_level_imports() -> dict[str, set[str]]:
    """Module of ours -> what importing it imports: its own top-level imports and the packages that it lies in."""
    found = {}
    for file in (ROOT / "nlp_ft").rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = {*imported(ast.parse(file.read_text(encoding="utf-8")).body), name.rpartition(".")[0]}
    return found


def test_no_extra_is_needed_to_import_the_core() -> None:
    modules = top_level_imports()
    for start in CORE:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            name = waiting.pop()
            if name in modules and name not in seen:
                seen.add(name)
                waiting += modules[name]
        outside = {name.partition(".")[0] for module in seen for name in modules[module]}
        assert {DISTRIBUTIONS.get(name, name).replace("_", "-") for name in outside} & OPTIONAL == set(), start
        assert len(seen) > 1, start

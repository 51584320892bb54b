"""The rules of the design page that no other test would notice: who imports whom, the public names, the words."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import nlp_ft

PACKAGE = Path(nlp_ft.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
STANDARD_LIBRARY = sys.stdlib_module_names
HEAVY = ("torch", "transformers", "datasets", "accelerate", "sklearn", "evaluate")

# Module or package -> what it may never import, at the top or inside a function.
NEVER = {
    "nlp_ft.recipe": HEAVY,
    "nlp_ft.durations": HEAVY,
    "nlp_ft.locations": HEAVY,
    "nlp_ft.data": ("nlp_ft.models", "nlp_ft.tasks", "nlp_ft.training", "nlp_ft.prediction"),
    "nlp_ft.models": ("nlp_ft.data", "nlp_ft.tasks", "nlp_ft.training", "nlp_ft.prediction"),
    "nlp_ft.tasks": ("nlp_ft.training", "nlp_ft.prediction", "nlp_ft.api", "nlp_ft.cli"),
    "nlp_ft.training": ("nlp_ft.prediction", "nlp_ft.study", "nlp_ft.api", "nlp_ft.cli"),
    "nlp_ft.study": ("nlp_ft.api", "nlp_ft.cli", "nlp_ft.integrations"),
    "nlp_ft.training.loop": ("nlp_ft.recipe", "nlp_ft.tasks", "transformers", "pydantic"),
    "nlp_ft.prediction": ("nlp_ft.study", "nlp_ft.export", "nlp_ft.api", "nlp_ft.cli"),
    "nlp_ft.export": ("nlp_ft.api", "nlp_ft.cli", "nlp_ft.integrations"),
    "nlp_ft.report": HEAVY,
    "nlp_ft.api": ("nlp_ft.cli", "nlp_ft.integrations"),
    "nlp_ft.training.loop_state": ("nlp_ft.recipe", "nlp_ft.tasks", "transformers", "pydantic"),
}
JUDGES = ("facts", "learning", "scores", "data", "judge")
NEVER |= {
    f"nlp_ft.training.verdict.{name}": (*HEAVY, "numpy", "nlp_ft.layerwise", "nlp_ft.recipe", "nlp_ft.tasks")
    for name in JUDGES
}
OF_INTEGRATIONS = (
    "torch",
    "nlp_ft.defaults",
    "nlp_ft.durations",
    "nlp_ft.errors",
    "nlp_ft.layerwise",
    "nlp_ft.suggest",
    "nlp_ft.integrations.strategy",
)
OF_HF = (*OF_INTEGRATIONS, "transformers", "accelerate")
# Module or package -> everything it may import beside the standard library.
ONLY = {
    "nlp_ft.integrations.strategy": (*OF_INTEGRATIONS, "nlp_ft.recipe.presets"),
    "nlp_ft.integrations.hf_arguments": OF_HF,
    "nlp_ft.integrations.hf_callback": (*OF_HF, "nlp_ft.integrations.hf_arguments"),
    "nlp_ft.integrations.hf_loss": OF_HF,
    "nlp_ft.integrations.hf_trainer": (*OF_HF, "nlp_ft.integrations.hf_callback", "nlp_ft.integrations.hf_loss"),
    "nlp_ft.integrations.lightning": (*OF_INTEGRATIONS, "lightning", "nlp_ft.integrations.lightning_setup"),
    "nlp_ft.integrations.lightning_setup": (*OF_INTEGRATIONS, "lightning"),
    "nlp_ft.integrations.ray_train": ("ray", "torch", "nlp_ft.errors", "nlp_ft.recipe", "nlp_ft.training"),
    "nlp_ft.integrations.sklearn": (
        "numpy", "sklearn", "nlp_ft.api", "nlp_ft.errors", "nlp_ft.integrations.sklearn_inputs",
        "nlp_ft.integrations.sklearn_run", "nlp_ft.tasks.tag_metrics",
    ),
    "nlp_ft.integrations.sklearn_inputs": ("numpy", "sklearn", "nlp_ft.errors"),
    "nlp_ft.integrations.sklearn_run": ("numpy", "sklearn", "nlp_ft.api", "nlp_ft.errors"),
    "nlp_ft.errors": (),
    "nlp_ft.suggest": (),
    "nlp_ft.hub": ("datasets", "huggingface_hub", "nlp_ft.errors"),
    "nlp_ft.tables": ("nlp_ft.errors",),
    "nlp_ft.screen": ("nlp_ft.environment", "nlp_ft.tables"),
    "nlp_ft.environment": ("accelerate", "nlp_ft.errors"),
    "nlp_ft.exits": ("nlp_ft.environment", "nlp_ft.errors"),
    "nlp_ft.durations": (),
    "nlp_ft.defaults": (),
    "nlp_ft.layerwise": (
        "torch", "nlp_ft.defaults", "nlp_ft.durations", "nlp_ft.errors", "nlp_ft.layerwise", "nlp_ft.suggest",
        "nlp_ft.tables",
    ),
    "nlp_ft.recipe": (
        "pydantic", "pydantic_core", "yaml", "nlp_ft.defaults", "nlp_ft.durations", "nlp_ft.errors", "nlp_ft.locations",
        "nlp_ft.recipe", "nlp_ft.suggest",
    ),
    "nlp_ft.report": (
        "jinja2", "matplotlib", "numpy", "scipy", "nlp_ft.errors", "nlp_ft.recipe.loader", "nlp_ft.report",
    ),
    "nlp_ft.locations": ("nlp_ft.errors",),
    "nlp_ft.options": ("nlp_ft.errors", "nlp_ft.locations"),
    "nlp_ft.study.statistics": ("numpy", "scipy"),
    "nlp_ft.patterns": (),
}  # fmt: skip
# What the command line imports at its top, so that `--help` answers at once.
LIGHT = (
    "nlp_ft.__version__",
    "nlp_ft.commands",
    "nlp_ft.environment",
    "nlp_ft.errors",
    "nlp_ft.exits",
    "nlp_ft.options",
    "nlp_ft.screen",
    "nlp_ft.study_options",
    "nlp_ft.tables",
)
# The words of the "not" column that mean nothing else.
REFUSED_WORDS = {
    "assigner",
    "decay_rate",
    "lr_mult",
    "n_classes",
    "n_labels",
    "num_classes",
    "parameter_groups",
    "skip_list",
    "thaw",
    "bs",
    "dev",
    "val",
    "targets",
}


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(nodes: Iterable[ast.AST]) -> set[str]:
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports would escape this rule"
            assert node.module
            found.add(node.module)
            # What is imported from a package of ours may be a module.
            found |= {f"{node.module}.{alias.name}" for alias in node.names if is_in(node.module, "nlp_ft")}
    return found


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.mark.parametrize("package", NEVER)
def test_a_part_never_imports_what_lies_above_it(package: str) -> None:
    parts = [file for file in FILES if is_in(module_name(file), package)]
    assert parts
    wrong = [
        f"{module_name(file)} imports {name}"
        for file in parts
        for name in imports(ast.walk(parsed(file)))
        if any(is_in(name, refused) for refused in NEVER[package])
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ONLY)
def test_a_part_imports_only_what_it_may(package: str) -> None:
    parts = [file for file in FILES if is_in(module_name(file), package)]
    assert parts
    wrong = [
        f"{module_name(file)} imports {name}"
        for file in parts
        for name in imports(ast.walk(parsed(file)))
        if name.split(".")[0] not in STANDARD_LIBRARY and not any(is_in(name, allowed) for allowed in ONLY[package])
    ]
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others_also_for_types_alone() -> None:
    modules = {module_name(file): file for file in FILES}

    def imported(file: Path) -> set[str]:
        # `nlp_ft` itself loads each public name when it is first asked for.
        return {name for name in imports(ast.walk(parsed(file))) if name in modules} - {"nlp_ft"}

    order = TopologicalSorter({name: imported(file) for name, file in modules.items()}).static_order()
    assert set(order) == set(modules)


@pytest.mark.parametrize("file", ["cli.py", "commands.py", "study_options.py"])
def test_the_command_line_imports_nothing_heavy_at_its_top(file: str) -> None:
    outside = {name for name in imports(parsed(PACKAGE / file).body) if name.split(".")[0] not in STANDARD_LIBRARY}
    assert {name for name in outside if not any(is_in(name, light) for light in LIGHT)} - {"nlp_ft"} == set()
    assert outside


def test_importing_the_package_imports_no_torch_and_no_transformers() -> None:
    assert run_python(f"import nlp_ft, sys; print(sorted(set(sys.modules) & set({HEAVY})))").strip() == "[]"


def test_reading_a_recipe_imports_no_torch_and_no_transformers() -> None:
    read = "from nlp_ft.recipe.loader import recipe_from_dict, json_schema; json_schema(); "
    read += "recipe_from_dict({'data': {'train': 'a.csv'}, 'model': {'name': 'm'}, 'output_dir': 'x'}); "
    assert run_python(f"import sys; {read} print(sorted(set(sys.modules) & set({HEAVY})))").strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"]])
def test_help_is_given_without_torch(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "nlp_ft", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    imported = {
        line.rsplit("|", 1)[-1].strip() for line in result.stderr.splitlines() if line.startswith("import time:")
    }
    assert (result.returncode, imported & {*HEAVY, "pydantic", "yaml"}) == (0, set())
    assert "nlp_ft.cli" in imported
    assert "nlp-ft" in result.stdout


def test_the_public_names_are_these_and_each_can_be_imported() -> None:
    assert nlp_ft.__all__ == [
        "LayerMap",
        "NlpFtError",
        "Recipe",
        "Run",
        "build_optimizer",
        "evaluate_run",
        "fit",
        "layerwise_param_groups",
        "load",
        "load_recipe",
        "load_run",
        "predict",
        "train",
    ]
    for name in nlp_ft.__all__:
        value = getattr(nlp_ft, name)
        assert callable(value), name
        assert getattr(importlib.import_module(value.__module__), value.__name__) is value


def test_the_public_names_are_offered_for_completion() -> None:
    assert set(nlp_ft.__all__) <= set(dir(nlp_ft))


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'nlp_ft' has no attribute 'finetune'"):
        getattr(nlp_ft, "finetune")  # noqa: B009  # type checkers know that there is none


def test_no_refused_word_is_an_identifier() -> None:
    wrong = [
        f"{module_name(file)}: {word}"
        for file in FILES
        for node in ast.walk(parsed(file))
        for word in (getattr(node, attribute, None) for attribute in ("id", "attr", "arg", "name", "asname"))
        if word in REFUSED_WORDS
    ]
    assert wrong == []


def test_every_module_says_what_it_is() -> None:
    silent = [module_name(file) for file in FILES if not ast.get_docstring(parsed(file))]
    assert silent == []

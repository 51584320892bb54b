"""What the pages say of files, keys and public names is true; the generated parts are whole."""

import ast
import re
from pathlib import Path

import yaml

import nlp_ft
import nlp_ft.layerwise
from docs.tools import generated
from docs.tools.default_sources import DEFAULT_SOURCES
from docs.tools.key_reference import key_reference, keys_of
from nlp_ft.recipe import RECIPES
from nlp_ft.recipe.derived import DERIVED_KEYS
from nlp_ft.recipe.presets import STRATEGY_PRESETS
from tests.docs.blocks import PAGES, README, ROOT

DOCS = ROOT / "docs"
SECTIONS = ("data", "model", "strategy", "optimizer", "schedule", "loss", "training")


def test_the_readme_has_at_most_900_words() -> None:
    assert len(README.read_text(encoding="utf-8").split()) <= 900


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_every_file_and_folder_that_a_page_names_exists() -> None:
    pattern = re.compile(r"`((?:nlp_ft|docs|recipes|scripts|tests)/[\w./-]*)`|\]\((?!https?:)([\w./-]+)(?:#[\w-]+)?\)")
    missing = []
    for page in (page for page in PAGES if page.name != "CHANGELOG.md"):
        for inline, link in pattern.findall(page.read_text(encoding="utf-8")):
            # Contributing and the changelog are pages of the site too.
            there = ROOT / inline if inline else page.parent / link
            if not there.exists():
                missing.append(f"{page.relative_to(ROOT)}: {inline or link}")
    assert missing == []


def test_every_key_that_a_page_names_is_one_of_recipes() -> None:
    known = {key.name for task in RECIPES for key in keys_of(task)}
    known |= {name.rpartition(".")[0] for name in known}
    named = {
        (page.relative_to(ROOT).as_posix(), key)
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for key in re.findall(rf"`((?:{'|'.join(SECTIONS)})\.[a-z_.]+)[=:`]", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert {(page, key) for page, key in named if key not in known | {"model.safetensors"}} == set()


def test_the_table_of_strategies_names_every_preset() -> None:
    [table] = re.findall(r"\| `strategy:` .*?\n\n", (DOCS / "strategies.md").read_text(), re.DOTALL)
    assert set(re.findall(r"^\| `(?:\{name: )?(\w+)", table, re.MULTILINE)) - {"strategy"} == set(STRATEGY_PRESETS)


def test_the_table_of_folders_has_a_line_for_every_folder_of_the_package() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(nlp_ft/[\w/]*)` \|", text, re.MULTILINE)
    folders = {f"{file.parent.relative_to(ROOT).as_posix()}/" for file in (ROOT / "nlp_ft").rglob("__init__.py")}
    assert {"add to docs/architecture.md": folders - set(listed), "drop there": set(listed) - folders} == {
        "add to docs/architecture.md": set(),
        "drop there": set(),
    }


def test_the_list_of_files_has_every_file_of_the_package_with_a_sentence() -> None:
    files = [file for file in (ROOT / "nlp_ft").rglob("*.py") if not file.name.startswith("__")]
    lines = re.findall(r"^- `(\w+\.py)`: (.*)$", generated.files(), re.MULTILINE)
    assert sorted(name for name, _ in lines) == sorted(file.name for file in files)
    assert [name for name, sentence in lines if len(sentence) < 10 or not sentence.endswith((".", "?"))] == []


def test_every_generated_part_is_one_that_the_hook_makes() -> None:
    used = {name for page in DOCS.rglob("*.md") for name in generated.PLACEHOLDER.findall(page.read_text())}
    assert used == set(generated.PARTS)
    assert (
        generated.on_page_markdown("a\n<!-- generated: presets -->\nb").splitlines()[1] == "| preset | what it sets |"
    )


def test_the_key_reference_shows_type_bounds_default_and_description() -> None:
    shown = [key for key in keys_of("text_classification") if key.name == "optimizer.layer_decay"]
    assert [(key.type, key.default) for key in shown] == [("number, above 0, at most 1", "default `0.9`")]
    assert [key.name for task in RECIPES for key in keys_of(task) if not key.description] == []
    reference = key_reference()
    assert [task for task in RECIPES for key in keys_of(task) if f"`{key.name}`" not in reference] == []
    ids = re.findall(r'id="([^"]+)"', reference)
    assert len(ids) == len(set(ids)) > 80


def test_every_default_that_is_a_choice_has_a_source() -> None:
    """Names, places, and values that turn something off are no choices."""
    neutral = ("required", *(f"default `{value}`" for value in ("null", "false", "[]", "0", "1", "all", "0st")))
    names = {"task", "data.train", "data.label", "data.text", "data.image", "seed"}
    keys = {key.name: key.default for task in RECIPES for key in keys_of(task) if key.name not in names}
    choices = {name for name, default in keys.items() if default not in neutral}
    assert choices - DEFAULT_SOURCES.keys() == set()
    assert DEFAULT_SOURCES.keys() - keys.keys() == set()
    assert set(DERIVED_KEYS) <= DEFAULT_SOURCES.keys()
    assert "*Source of the default: [Howard and Ruder 2018]" in key_reference()


def test_the_preset_of_a_task_is_its_default() -> None:
    metric = {task: key.default for task in RECIPES for key in keys_of(task) if key.name == "training.metric"}
    assert (metric["text_classification"], metric["text_regression"]) == ("default `accuracy`", "default `spearman`")


def test_the_api_reference_has_every_public_name() -> None:
    text = (DOCS / "reference/api.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    core = {f"nlp_ft.layerwise.{name}" for name in nlp_ft.layerwise.__all__}
    above = {f"nlp_ft.{name}" for name in set(nlp_ft.__all__) - set(nlp_ft.layerwise.__all__)}
    integrations = {
        f"nlp_ft.integrations.{file.stem}.{name}"
        for file in (ROOT / "nlp_ft/integrations").glob("*.py")
        for name in public_names(file)
    }
    assert shown == core | above | integrations


def public_names(file: Path) -> list[str]:
    """What `__all__` of a file holds; nothing where there is none."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    return []


def test_the_site_is_built_with_every_warning_as_an_error() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["strict"] is True

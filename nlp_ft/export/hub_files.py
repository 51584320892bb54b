"""The files of a run that go up to the Hub: what a client needs, without texts of rows and folders of this machine."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import Any

from nlp_ft.errors import RunFolderError
from nlp_ft.export.hub_card import hub_card
from nlp_ft.recipe.loader import dump_yaml, load_recipe, recipe_to_dict
from nlp_ft.report.run_files import RECIPE, SUMMARY, read_summary
from nlp_ft.training.model_card import markdown_text
from nlp_ft.training.run_folder import EXPORT

CARD, CONFIG = "README.md", "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
OF_CLIENT = (
    CARD,
    CONFIG,
    RECIPE,
    SUMMARY,
    "model*.safetensors",
    *WEIGHTS,
    "generation_config.json",
    "p*processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "*_vocab.json",
    "merges.txt",
    "bpe.codes",
    "*.model",
    "*.spm",
    "chat_template.jinja",
)
"""Names of the files that go up. All others stay, also those that somebody put into the folder."""
CODE = "*.py"
"""Files that go up, too, if the model is of a class of its own, which config.json names as `auto_map`."""
CLEANED = (CARD, CONFIG, "tokenizer_config.json")
"""Files that may name folders of this machine, beside the recipe and the summary."""


@dataclass(frozen=True)
class HubFiles:
    """What goes up.

    Args:
        contents: name -> the file, or its content where that differs.
        left_out: names of the files that stay.
    """

    contents: Mapping[str, Path | bytes]
    left_out: tuple[str, ...]

    def sizes(self) -> dict[str, int]:
        """List the bytes of each file."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.contents.items()
        }


def hub_files(run: str, repo_id: str, license_id: str | None) -> HubFiles:
    """Collect the files of a finished run.

    Args:
        run: a run folder.
        repo_id: where the model will be.
        license_id: its licence, as the Hub names it; None leaves it to be filled in.

    Raises:
        RunFolderError: the folder is no finished run, or an export, or a file is damaged.
        RecipeError: recipe.yaml is damaged.
        HubError: the metadata of the card are damaged.
    """
    folder = Path(run)
    if (folder / EXPORT).exists():
        raise RunFolderError(f"{run} is an export; push the run that it came from")
    summary, recipe = read_summary(folder), recipe_to_dict(load_recipe(folder / RECIPE))
    missing = [name for name in (CARD, CONFIG) if not (folder / name).exists()]
    if missing or not any((folder / name).exists() for name in WEIGHTS):
        raise RunFolderError(f"{run} is not a whole run: it has no {(missing or WEIGHTS)[0]}")
    names = sorted(file.name for file in folder.iterdir())
    config = _read_config(folder)
    patterns = (*OF_CLIENT, *((CODE,) if "auto_map" in config else ()))
    chosen = [name for name in names if (folder / name).is_file() and any(fnmatch(name, one) for one in patterns)]
    words = _words(summary.get("command"))
    replaced = _replaced(folder, recipe, config, words)
    texts = {
        name: _without_folders((folder / name).read_text(encoding="utf-8"), replaced)
        for name in CLEANED
        if name in chosen
    }
    texts[CARD] = hub_card(texts[CARD], repo_id, license_id, recipe, summary)
    # Not as texts: YAML breaks a long path into lines, and a shell quotes it.
    texts[RECIPE] = dump_yaml(_cleaned(recipe, replaced))
    command = shlex.join(_cleaned(words, replaced)) or None
    texts[SUMMARY] = json.dumps({**_cleaned(summary, replaced), "command": command}, indent=2) + "\n"
    contents = {name: texts[name].encode() if name in texts else folder / name for name in chosen}
    return HubFiles(contents, tuple(name for name in names if name not in chosen))


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is no section")
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{folder}: its {CONFIG} is damaged: {error}") from None
    return config


def _words(command: str | None) -> list[str]:
    """Split a command line as a shell does; none if it cannot be read."""
    try:
        return shlex.split(command or "")
    except ValueError:
        return []


def _replaced(
    folder: Path, recipe: Mapping[str, Any], config: Mapping[str, Any], words: Sequence[str]
) -> dict[str, str]:
    """Find the absolute paths that the files name: path -> its last part, the longest path first."""
    data = recipe["data"]
    places = [data.get(key) for key in ("source", "train", "validation", "test")]
    texts = [
        str(folder.absolute()),
        recipe["model"]["name"],
        recipe["model"].get("weights"),
        recipe["output_dir"],
        *(path for place in places for path in (place if isinstance(place, list) else [place])),
        *_origins(config),
        *(word.rpartition("=")[2] for word in words),
    ]
    found = {text for text in texts if isinstance(text, str) and PurePath(text).is_absolute() and PurePath(text).name}
    return {path: PurePath(path).name for path in sorted(found, key=len, reverse=True)}


def _origins(config: Mapping[str, Any]) -> Iterator[str]:
    """Find where the networks of a configuration were loaded from."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _origins(value)
        elif key == "_name_or_path":
            yield value


def _cleaned(value: Any, replaced: Mapping[str, str]) -> Any:
    """Replace paths in all texts of nested lists and mappings."""
    if isinstance(value, Mapping):
        return {key: _cleaned(inner, replaced) for key, inner in value.items()}
    if isinstance(value, list):
        return [_cleaned(inner, replaced) for inner in value]
    return _without_folders(value, replaced) if isinstance(value, str) else value


def _without_folders(text: str, replaced: Mapping[str, str]) -> str:
    """Replace paths, as they are, as JSON writes them and as Markdown does."""
    for path, name in replaced.items():
        for written in (str, lambda plain: json.dumps(plain)[1:-1], markdown_text):
            # Not `/data` within `in/data` or `~/data`, where it is no path of its own.
            text = re.sub(rf"(?<![\w.~-]){re.escape(written(path))}", written(name).replace("\\", r"\\"), text)
    return text

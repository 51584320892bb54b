"""Checks that a run is resumed with the recipe that began it; imports no torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlp_ft.errors import RecipeError, RunFolderError
from nlp_ft.recipe.derived import DERIVED_KEYS
from nlp_ft.recipe.loader import read_yaml

RECIPE = "recipe.yaml"
NOT_COMPARED = {"output_dir", "training.gradient_accumulation_steps"}
"""One folder can be written in several ways, and identity.py compares the product of accumulation and processes."""


def refuse_other_recipe(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Compare the recipe in a run folder with the present one.

    Args:
        folder: the run folder.
        recipe: the settings of the present recipe.

    Raises:
        RunFolderError: the recipes differ; the message names each different setting.
    """
    file = folder / RECIPE
    if not file.exists():
        if any(folder.glob("checkpoints/step-*")):
            raise RunFolderError(f"--resume: {file} is missing, so the recipe that began {folder} is not known")
        return
    try:
        before = _flat(read_yaml(file))
    except RecipeError as error:
        raise RunFolderError(f"--resume: {error}; pass --overwrite to begin anew") from None
    now = _flat(json.loads(json.dumps(recipe)))
    keys = sorted((before.keys() | now.keys()) - NOT_COMPARED)
    # The folder holds what was derived; a recipe that leaves it out is compared again once it is derived anew.
    keys = [key for key in keys if key not in DERIVED_KEYS or now.get(key) is not None]
    different = [
        f"{key}: {before.get(key)} then, {now.get(key)} now" for key in keys if before.get(key) != now.get(key)
    ]
    if different:
        raise RunFolderError(f"--resume: {folder} was begun with another recipe; different: {'; '.join(different)}")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings: `a.b` -> value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
        flat.update(inner)
    return flat

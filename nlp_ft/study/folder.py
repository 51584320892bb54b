"""The folder of a comparison: what may lie in it, and the recipes of its cells."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nlp_ft.errors import RunFolderError
from nlp_ft.recipe.loader import dump_yaml, read_yaml, recipe_to_dict
from nlp_ft.study.cells import CELLS, PLAN, TEST, Plan
from nlp_ft.training import durable

MADE_ANEW = "remove it, and the comparison makes it anew"


def write_recipes(plan: Plan) -> None:
    """Write the recipes of the cells into the claimed folder. Raises: RunFolderError: they are not those there."""
    for cell in plan.cells:
        values = plan.recipe_of(cell)
        text, file = dump_yaml(values), plan.recipe_file(cell)
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        # The folder may have been moved, or is named in another way.
        if file.exists() and not _is_same(file, values):
            raise RunFolderError(f"--output: {file} was written by another comparison; choose another folder")
        durable.write_text(file, text)


def read_object(file: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object that a study has written. Raises: RunFolderError: it is damaged; `remedy` says what to do."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise RunFolderError(f"{file} is damaged; {remedy}")
    return found


def claim_folder(plan: Plan) -> None:
    """Make the comparison folder with the plan; strategies and seeds may be added to a plan that is there.

    Raises:
        RunFolderError: the folder holds another comparison, or something else.
    """
    settings = recipe_to_dict(plan.recipe)
    # The strategy and its rates stand in the recipes of the cells.
    shared = {key: value for key, value in settings.items() if key not in ("output_dir", "seed")}
    now = json.loads(json.dumps({"recipe": shared, "factors": list(plan.factors), "equal": plan.equal}))
    file = plan.folder / PLAN
    if file.exists():
        before = read_object(file, "put it back, or choose another folder with --output")
        different = _different(before.get("recipe", {}), now["recipe"])
        if before.get("factors") != now["factors"]:
            different.append("--rates")
        if before.get("equal", "epochs") != plan.equal:
            different.append("--equal")
        if different:
            raise RunFolderError(
                f"--output: {plan.folder} holds a comparison of another recipe or with other rates; different: "
                f"{', '.join(different)}; choose another folder"
            )
    else:
        require_empty(plan.folder, "comparison")
    plan.folder.mkdir(parents=True, exist_ok=True)
    durable.write_text(file, json.dumps(now, indent=2) + "\n")
    for name in (CELLS, TEST):
        (plan.folder / name).mkdir(exist_ok=True)


def require_room(plan: Plan, num_cells: int, bytes_of_model: int) -> None:
    """Check that the disk takes the models of so many cells. Raises: RunFolderError: it does not."""
    place = next(folder for folder in (plan.folder.absolute(), *plan.folder.absolute().parents) if folder.exists())
    needed, free = num_cells * bytes_of_model, shutil.disk_usage(place).free
    if free < needed:
        raise RunFolderError(
            f"--output: the models of {num_cells} cells take {needed / 2**30:,.1f} GiB in {plan.folder}, but "
            f"{free / 2**30:,.1f} GiB are free on that disk; name a folder on another one, or compare fewer "
            "--strategies, --rates or --seeds"
        )


def require_empty(folder: Path, what: str) -> None:
    """Check that a study may begin in a folder: none, or an empty one. Raises: RunFolderError."""
    # A first start that found no room on the disk leaves a file that was being written.
    if folder.exists() and any(one.suffix != ".writing" for one in folder.iterdir()):
        raise RunFolderError(f"--output: {folder} holds other things than a {what}; choose another folder")


def require_same_rows(
    folder: Path, name: str, summary: Mapping[str, Any], hashes: Mapping[str, str], splits: Sequence[str]
) -> None:
    """Check that a finished run of a study has seen the rows of some splits, which have these hashes now.

    Raises:
        RunFolderError: it has seen others.
    """
    seen = summary.get("data_hashes", {})
    if changed := [split for split in splits if split in seen and seen[split] != hashes[split]]:
        raise RunFolderError(
            f"{folder}: the rows of {' and '.join(changed)} have changed since {name} was trained; put the data back, "
            "or begin anew in another folder"
        )


def _is_same(file: Path, values: Mapping[str, Any]) -> bool:
    """Whether a recipe is the same but for its folder. Raises: RecipeError: it cannot be read."""
    before, now = read_yaml(file), json.loads(json.dumps(values))
    return not [key for key in _different(before, now) if key != "output_dir"]


def _different(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List the dotted keys in which nested settings differ."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        first, second = before.get(key), now.get(key)
        if isinstance(first, dict) and isinstance(second, dict):
            found += _different(first, second, f"{prefix}{key}.")
        elif first != second:
            found.append(f"{prefix}{key}")
    return found

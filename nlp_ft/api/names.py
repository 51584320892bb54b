"""Names of run folders: a readable one that is not taken, and the folder of rows that lies beside each."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlp_ft.recipe.strategy import StrategySection

DATA_SUFFIX = ".data"
"""What stands behind the name of a run folder in that of the folder with its rows."""
RUNS = Path("runs")


def data_folder(output_dir: str | Path) -> Path:
    """Name the folder with the rows of a run, beside the run folder."""
    folder = Path(output_dir)
    return folder.with_name(folder.name + DATA_SUFFIX)


def free_folder(values: Mapping[str, Any]) -> str:
    """Name a new run folder after model and strategy, such as `runs/bert-base-uncased-gradual-2`.

    Args:
        values: the settings of a recipe as nested dicts.
    """
    model, strategy = values.get("model"), values.get("strategy")
    name = model.get("name") if isinstance(model, Mapping) else None
    way = strategy.get("name") if isinstance(strategy, Mapping) else None
    parts = [part for part in str(name or "model").rstrip("/").replace(":", "/").split("/") if part]
    # `package:NAME/model` says more by NAME.
    chosen = parts[-2] if len(parts) > 1 and parts[-1] == "model" else parts[-1]
    stem = re.sub(r"[^\w.-]+", "-", f"{chosen}-{way or StrategySection.model_fields['name'].default}").strip("-.")
    number = 1
    while True:
        folder = RUNS / (stem if number == 1 else f"{stem}-{number}")
        beside = [folder, folder.with_name(folder.name + ".partial"), data_folder(folder)]
        if not any(place.exists() for place in beside):
            return str(folder)
        number += 1

"""Reads how a model of sentence-transformers was trained to pool its tokens; the package itself is not needed."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from nlp_ft.defaults import Pooling
from nlp_ft.models.loading import optional_file

MODULES = "modules.json"
POOLINGS: dict[str, Pooling] = {"cls": "cls", "cls_token": "cls", "mean": "mean", "mean_tokens": "mean"}
POOLINGS |= {"max": "max", "max_tokens": "max"}
"""How sentence-transformers names a pooling -> how a recipe names it; others, such as weighted means, are left out."""


def trained_pooling(location: str, revision: str = "main") -> Pooling | None:
    """Read the pooling from the files beside a model; None if it is no model of sentence-transformers.

    Args:
        location: a folder or a Hub id.
        revision: branch, tag or commit of a Hub model.
    """
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        modules = _read(location, MODULES, revision)
        [path] = [module["path"] for module in modules if module["type"].rpartition(".")[2] == "Pooling"]
        settings = _read(location, f"{path}/config.json", revision)
        turned_on = [key for key, value in settings.items() if value is True and key.startswith("pooling_mode_")]
        modes = [key.removeprefix("pooling_mode_") for key in turned_on]
        [mode] = [settings["pooling_mode"]] if "pooling_mode" in settings else modes
        return POOLINGS.get(mode)
    return None


def _read(location: str, name: str, revision: str) -> Any:
    file = optional_file(location, name, revision)
    return None if file is None else json.loads(Path(file).read_text(encoding="utf-8"))

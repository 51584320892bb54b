"""nlp_ft: fine-tuning of transformers with layer-wise learning rates, from a recipe to a model people can use.

Importing it imports neither torch nor transformers. Still, Transformers' Auto classes then load every model that nlp_ft
saves. Their `register` methods cannot do that alone: reaching them imports torch, and they take classes, not names. So
a finder on `sys.meta_path` registers our classes right after the Auto classes are imported; where they already are,
our classes are registered at once.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlp_ft.api.fit import fit as fit
    from nlp_ft.api.run import Run as Run
    from nlp_ft.api.run import load as load
    from nlp_ft.errors import NlpFtError as NlpFtError
    from nlp_ft.layerwise import LayerMap as LayerMap
    from nlp_ft.layerwise import build_optimizer as build_optimizer
    from nlp_ft.layerwise import layerwise_param_groups as layerwise_param_groups
    from nlp_ft.prediction.predict import evaluate_run as evaluate_run
    from nlp_ft.prediction.predict import load_run as load_run
    from nlp_ft.prediction.predict import predict as predict
    from nlp_ft.recipe import Recipe as Recipe
    from nlp_ft.recipe.loader import load_recipe as load_recipe
    from nlp_ft.training.run import train as train

__version__ = "0.1.0"

_PUBLIC = {
    "LayerMap": "nlp_ft.layerwise",
    "NlpFtError": "nlp_ft.errors",
    "Recipe": "nlp_ft.recipe",
    "Run": "nlp_ft.api.run",
    "build_optimizer": "nlp_ft.layerwise",
    "evaluate_run": "nlp_ft.prediction.predict",
    "fit": "nlp_ft.api.fit",
    "layerwise_param_groups": "nlp_ft.layerwise",
    "load": "nlp_ft.api.run",
    "load_recipe": "nlp_ft.recipe.loader",
    "load_run": "nlp_ft.prediction.predict",
    "predict": "nlp_ft.prediction.predict",
    "train": "nlp_ft.training.run",
}
__all__ = sorted(_PUBLIC)

_REGISTERED_AFTER = {
    "transformers.models.auto.configuration_auto": ("nlp_ft.models.configs",),
    "transformers.models.auto.modeling_auto": ("nlp_ft.models.pooled_classifier", "nlp_ft.models.image_classifier"),
}
"""Module with Auto classes -> our modules that register classes there when they are imported.

There are two, because `configuration_auto` is imported while the base class of models is still being defined.
"""


if not TYPE_CHECKING:  # type checkers have the imports above

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


def _register(auto_module: str) -> None:
    for name in _REGISTERED_AFTER[auto_module]:
        importlib.import_module(name)


class _RegisterAfterAutoClasses(importlib.abc.MetaPathFinder):
    """Lets the other finders find the Auto classes, and registers our classes once they have been executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of a module with Auto classes; None for every other module."""
        if name not in _REGISTERED_AFTER:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((found for found in others if found), None)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register(name)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


for _auto_module in _REGISTERED_AFTER:
    if _auto_module in sys.modules:
        _register(_auto_module)
sys.meta_path.insert(0, _RegisterAfterAutoClasses())

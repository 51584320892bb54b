"""nlp_ft: fine-tuning of transformers with layer-wise learning rates, from a recipe to a model people can use.

Importing it imports no torch. It makes Transformers' Auto classes able to load the models that nlp_ft saves: at once
where Transformers' modeling code is already loaded, else at the moment when that is loaded.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    "build_optimizer": "nlp_ft.layerwise",
    "evaluate_run": "nlp_ft.prediction.predict",
    "layerwise_param_groups": "nlp_ft.layerwise",
    "load_recipe": "nlp_ft.recipe.loader",
    "load_run": "nlp_ft.prediction.predict",
    "predict": "nlp_ft.prediction.predict",
    "train": "nlp_ft.training.run",
}
__all__ = sorted(_PUBLIC)

_AUTO_CLASSES = "transformers.models.auto.modeling_auto"
_REGISTERED = ("nlp_ft.models.pooled_classifier", "nlp_ft.models.image_classifier")
"""The modules that make the Auto classes know a class of ours."""


if not TYPE_CHECKING:  # type checkers have the imports above

    def __getattr__(name: str) -> Any:
        if name not in _PUBLIC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


class _RegisterAfterAutoClasses(importlib.abc.MetaPathFinder):
    """Runs our registration once Transformers' Auto classes have been imported, and then takes itself away."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec of the Auto classes, with the registration after their execution; None for all else."""
        if name != _AUTO_CLASSES:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _register() -> None:
    for name in _REGISTERED:
        importlib.import_module(name)


if _AUTO_CLASSES in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _RegisterAfterAutoClasses())

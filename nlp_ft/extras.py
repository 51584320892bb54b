"""Imports packages that only some tasks need, or says how to install them."""

from importlib import import_module
from types import ModuleType
from typing import Any

from nlp_ft.errors import MachineError, NlpFtError


def require_torchvision(error: type[NlpFtError], module: str = "torchvision") -> ModuleType:
    """Import a module of torchvision.

    Args:
        error: class of the error to raise.
        module: name of the module.

    Raises:
        error: torchvision is not installed, or does not fit the installed torch.
    """
    try:
        return import_module(module)
    except (ImportError, RuntimeError, OSError) as problem:
        why = "is not installed" if isinstance(problem, ModuleNotFoundError) else f"cannot be imported: {problem}"
        raise error(
            f"task: image_classification needs torchvision, which {why}; try: pip install 'nlp-ft[vision]'"
        ) from None


def require_peft(error: type[NlpFtError]) -> Any:
    """Import PEFT. Raises: error: it is not installed, or does not fit the installed packages."""
    try:
        return import_module("peft")
    except (ImportError, RuntimeError) as problem:
        why = "is not installed" if isinstance(problem, ModuleNotFoundError) else f"cannot be imported: {problem}"
        raise error(f"strategy lora needs peft, which {why}; try: pip install 'nlp-ft[lora]'") from None


def require_optuna(error: type[NlpFtError]) -> Any:
    """Import Optuna, which then says warnings alone. Raises: error: it is not installed, or cannot be imported."""
    try:
        optuna = import_module("optuna")
    except (ImportError, RuntimeError) as problem:
        why = "is not installed" if isinstance(problem, ModuleNotFoundError) else f"cannot be imported: {problem}"
        raise error(f"nlp-ft tune needs optuna, which {why}; try: pip install 'nlp-ft[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def require_engine(module: str) -> Any:
    """Import a module of the extra `export`. Raises: MachineError: it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        raise MachineError(f"this needs the package {module}; try: pip install 'nlp-ft[export]'") from None


def require_ray() -> Any:
    """Import Ray. Raises: MachineError: it is not installed, or cannot be imported."""
    try:
        return import_module("ray")
    except (ImportError, RuntimeError, OSError) as problem:
        why = "is not installed" if isinstance(problem, ModuleNotFoundError) else f"cannot be imported: {problem}"
        raise MachineError(f"--executor ray needs ray, which {why}; try: pip install 'nlp-ft[ray]'") from None

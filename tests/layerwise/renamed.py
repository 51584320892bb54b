"""A model whose attributes all have random names, and whose forward pass still works.

Who walks the model sees the new names alone; code inside the model that asks for an old one is sent on to the new one.
"""

import random
import string
from typing import Any


class Renamed(dict[str, Any]):
    """A module's children, parameters or buffers under new names; looking up an old one finds the same thing."""

    def __init__(self, contents: dict[str, Any], names: random.Random) -> None:
        self._new = {name: "".join(names.choices(string.ascii_lowercase, k=9)) for name in contents}
        super().__init__({self._new[name]: value for name, value in contents.items()})

    def __contains__(self, name: object) -> bool:
        return super().__contains__(self._new.get(str(name), name))

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(self._new.get(name, name))

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(self._new.get(name, name), value)


def rename(model: Any, seed: int = 0) -> None:
    """Give every child, parameter and buffer of every module another name; the same module keeps one set of names."""
    names = random.Random(seed)
    for module in list(model.modules()):
        for kind in ("_modules", "_parameters", "_buffers"):
            module.__dict__[kind] = Renamed(module.__dict__[kind], names)
    if hasattr(model, "base_model_prefix"):
        model.base_model_prefix = ""

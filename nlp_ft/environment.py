"""Reads and checks the environment variables of a process, before anything starts.

An empty variable that should name a folder counts as not set: the libraries would read it as the current folder or `/`.
"""

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nlp_ft.errors import MachineError

FOLDERS = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
"""Variables that must hold an absolute path; others are ignored, as the specification of the XDG folders asks.

https://specifications.freedesktop.org/basedir-spec/latest/
"""
FOLDERS_OF_LIBRARIES = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "HF_ASSETS_CACHE",
    "HF_XET_CACHE",
    "HF_DATASETS_CACHE",
    "HF_MODULES_CACHE",
    "TORCH_HOME",
)
BOUNDS = {
    "WORLD_SIZE": (1, 10**6),
    "RANK": (0, 10**6),
    "LOCAL_RANK": (-1, 10**6),
    "LOCAL_WORLD_SIZE": (1, 10**6),
    "MASTER_PORT": (0, 65_535),
}
FLAGS = (
    "ACCELERATE_USE_CPU",
    "ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_USE_FSDP",
    "ACCELERATE_USE_MEGATRON_LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG",
    "ACCELERATE_DEBUG_MODE",
    "ACCELERATE_CPU_AFFINITY",
    "ACCELERATE_DYNAMO_USE_FULLGRAPH",
    "ACCELERATE_DYNAMO_USE_DYNAMIC",
    "ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION",
)
ON, OFF = ("1", "true", "yes", "on", "y", "t"), ("0", "false", "no", "off", "n", "f")
"""Words that Accelerate (1.15) reads as true and false, in small or capital letters."""


def ignore_unusable_folders() -> None:
    """Remove variables that do not name a folder. Call it before importing the libraries that read them."""
    for name in (*FOLDERS, *FOLDERS_OF_LIBRARIES):
        value = os.environ.get(name)
        if value is not None and (not value.strip() or (name in FOLDERS and not os.path.isabs(value))):
            del os.environ[name]


def show_what_cannot_be_shown() -> None:
    """Let stdout and stderr escape characters that the terminal cannot show, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def check_environment() -> None:
    """Check the variables that would otherwise fail later with a less clear error, or make folders in odd places.

    Raises:
        MachineError: a variable has a wrong value; the message names it, its value and what it must be.
    """
    for name, (least, most) in BOUNDS.items():
        _number(name, least, most)
    for name in FLAGS:
        is_on(name)
    processes = num_launched()
    if processes > 1:
        for name in ("RANK", "MASTER_ADDR"):
            if not os.environ.get(name, "").strip():
                raise MachineError(
                    f"WORLD_SIZE is {processes}, but {name} is not set: start all processes with torchrun or "
                    "accelerate launch, which set both; for one process, unset WORLD_SIZE"
                )
        _number("RANK", 0, processes - 1)
    feature_folder()


def num_launched() -> int:
    """Count the processes that the launcher started. Raises: MachineError."""
    return _number("WORLD_SIZE", 1, BOUNDS["WORLD_SIZE"][1]) or 1


def is_main_process() -> bool:
    """Whether this process prints for all processes; True if the variables are wrong, so that the error is shown."""
    try:
        return num_launched() == 1 or not _number("RANK", 0, BOUNDS["RANK"][1])
    except MachineError:
        return True


def is_on(flag: str) -> bool:
    """Whether a flag is on; False if it is not set. Raises: MachineError: its value is neither true nor false."""
    value = os.environ.get(flag)
    if value is None or value.lower() in OFF:
        return False
    if value.lower() in ON:
        return True
    raise MachineError(f"{flag} must be true or false, got {value!r}; set it so, or unset it")


def feature_folder() -> Path:
    """Find the folder of the features of all runs: `$NLP_FT_CACHE/features`, or one in the user's cache.

    Raises:
        MachineError: NLP_FT_CACHE is a relative path, which would depend on the current folder; or there is no home
            folder.
    """
    own = os.environ.get("NLP_FT_CACHE", "")
    if own.strip():
        folder = Path(os.path.expanduser(own))
        if not folder.is_absolute():
            raise MachineError(f"NLP_FT_CACHE must be an absolute path, got {own}; did you mean {folder.absolute()}?")
        return folder / "features"
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not caches.is_absolute():
        caches = Path(os.path.expanduser("~")) / ".cache"
    if not caches.is_absolute():
        raise MachineError("HOME is not set, and this user has no home folder: set HOME to an absolute path")
    return caches / "nlp_ft" / "features"


@contextmanager
def launching() -> Iterator[None]:
    """Turn the errors that Accelerate raises at its start into one clear error.

    Raises:
        MachineError: Accelerate cannot start; the message lists the variables that describe the launch.
    """
    from accelerate import PartialState
    from accelerate.state import AcceleratorState

    try:
        yield
    except (ValueError, RuntimeError, LookupError, ImportError, NotImplementedError) as error:
        # The next start in this process would take a half-made state for a whole one.
        AcceleratorState._reset_state()
        PartialState._reset_state()
        told = [f"{name}={value}" for name, value in sorted(os.environ.items()) if _tells_a_launch(name)]
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise MachineError(
            f"the launch cannot be joined: {lines[0]}; the environment says: {', '.join(told) or 'nothing'}"
        ) from error


def _tells_a_launch(name: str) -> bool:
    return name in BOUNDS or name == "MASTER_ADDR" or name.startswith("ACCELERATE_")


def _number(name: str, least: int, most: int) -> int | None:
    value = os.environ.get(name)
    if value is None:
        return None
    if not re.fullmatch(r"\s*-?[0-9]{1,9}\s*", value) or not least <= int(value) <= most:
        raise MachineError(
            f"{name} must be a whole number of {least} to {most}, got {value!r}; the launcher sets it (torchrun, "
            "accelerate launch); without one, unset it"
        )
    return int(value)

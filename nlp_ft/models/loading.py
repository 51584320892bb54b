"""Loads pretrained weights strictly: every tensor is accounted for, and nothing is unpickled.

Transformers initializes missing tensors at random and only logs it. Here a missing tensor is an error, unless it
belongs to a head that is new on purpose.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from nlp_ft.errors import ModelError
from nlp_ft.screen import is_verbose

ADAPTER_CONFIG_NAME = "adapter_config.json"
WHOLE_NUMBERS = ("I", "U", "BOOL")
"""First letters of the names that safetensors gives to whole-number types."""


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model, and which of its parameters came from the checkpoint.

    Args:
        model: the model, in float32; its tensors share no memory with the file.
        new: names of the parameters that the checkpoint lacks or has in another shape; they are random.
        resized: the names in `new` that the checkpoint has in another shape.
        unused: names in the checkpoint that the model does not have.
    """

    model: PreTrainedModel
    new: tuple[str, ...]
    resized: tuple[str, ...]
    unused: tuple[str, ...]


def load_pretrained(
    auto_class: Any,
    location: str,
    config: PreTrainedConfig | None = None,
    *,
    may_lack_head: bool = False,
    trust_remote_code: bool = False,
    revision: str = "main",
    **options: Any,
) -> LoadedModel:
    """Load a model of an Auto class with its weights, in float32.

    Args:
        auto_class: an Auto class of Transformers, such as `AutoModelForSequenceClassification`.
        location: a folder or a Hub id.
        config: configuration of the model; None reads config.json.
        may_lack_head: whether parameters of the head may be missing or have another shape.
        trust_remote_code: whether Python code that comes with the model may run.
        revision: branch, tag or commit of a Hub model.
        options: further arguments for `from_pretrained`.

    Raises:
        ModelError: a tensor is missing, has another shape, is not finite or holds whole numbers; or the weights are an
            adapter, or are in files other than safetensors.
    """
    check_weight_files(location, revision)
    given = {} if config is None else {"config": config}
    model, info = auto_class.from_pretrained(
        location,
        use_safetensors=True,
        dtype=torch.float32,
        trust_remote_code=trust_remote_code,
        revision=revision,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **given,
        **options,
    )
    shapes = {name: (tuple(found), tuple(wanted)) for name, found, wanted in info["mismatched_keys"]}
    new = sorted({*info["missing_keys"], *shapes})
    unused = tuple(sorted(info["unexpected_keys"]))
    lacking = [name for name in new if not (may_lack_head and is_of_head(model, name))]
    if lacking:
        _refuse(lacking, shapes, unused)
    _require_finite(model)
    give_own_memory(model)
    return LoadedModel(model, tuple(new), tuple(shapes), unused)


def is_of_head(model: PreTrainedModel, name: str) -> bool:
    """Whether a parameter is above the encoder: outside of the base model, or in its pooler."""
    prefix = model.base_model_prefix
    return (hasattr(model, prefix) and not name.startswith(f"{prefix}.")) or "pooler" in name.split(".")


def check_weight_files(location: str, revision: str = "main") -> None:
    """Check the weight files before anything is loaded; those of a Hub model are downloaded for this.

    Raises:
        ModelError: there are no weight files, an index names files other than safetensors, or a tensor cannot be a
            weight.
    """
    if (Path(location) / ADAPTER_CONFIG_NAME).is_file():
        raise ModelError("it holds an adapter, not a whole model; merge the two with PEFT's merge_and_unload and save")
    index = optional_file(location, SAFE_WEIGHTS_INDEX_NAME, revision)
    whole = optional_file(location, SAFE_WEIGHTS_NAME, revision)
    if whole is not None:
        files = [whole]
    elif index is not None:
        files = _shards(location, index, revision)
    elif Path(location).is_dir():
        raise ModelError(f"it has no {SAFE_WEIGHTS_NAME}; nothing but safetensors is read, since a pickle can run code")
    else:
        return  # Transformers looks for a converted copy on the Hub, and raises if there is none.
    types = {name: kind for file in files for name, kind in _types(file)}
    if not types:
        raise ModelError(f"{Path(files[0]).name} holds no tensor")
    numbers = [name for name, kind in types.items() if kind.startswith(WHOLE_NUMBERS) and _is_weight(name)]
    if numbers:
        raise ModelError(
            f"{numbers[0]} and {len(numbers) - 1} more hold whole numbers ({types[numbers[0]]}) instead of weights; "
            "quantised weights must be saved in float32, float16 or bfloat16"
        )


def renew(model: PreTrainedModel, fresh: nn.Module, names: Iterable[str]) -> None:
    """Overwrite the named parameters with those of `fresh`, a model of the same structure with random weights."""
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).copy_(fresh.get_parameter(name))


def give_own_memory(model: nn.Module) -> None:
    """Copy tensors that safetensors has mapped from a file into memory that torch aligns.

    Otherwise a change of the file would change the weights, and results would depend on the position of a tensor in the
    file: MKL sums in another order at an address that is not a multiple of 64.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def optional_file(location: str, name: str, revision: str) -> str | None:
    """Find a file beside a model, downloaded if need be; None if there is none."""
    found: str | None = cached_file(
        location,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return found


def _shards(location: str, index: str, revision: str) -> list[str]:
    try:
        names = sorted(set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ModelError(f"{SAFE_WEIGHTS_INDEX_NAME} is not an index of weights") from None
    wrong = [name for name in names if not str(name).endswith(".safetensors") or Path(name).name != name]
    if wrong:
        raise ModelError(
            f"{SAFE_WEIGHTS_INDEX_NAME} names {wrong[0]!r}; only safetensors files beside it are read, since a pickle "
            "can run code"
        )
    if Path(location).is_dir():
        missing = [name for name in names if not (Path(location) / name).is_file()]
        if missing:
            raise ModelError(f"{SAFE_WEIGHTS_INDEX_NAME} names {missing[0]}, which is not there")
    files, _ = get_checkpoint_shard_files(location, index, revision=revision)
    return list(files)


def _types(file: str) -> list[tuple[str, str]]:
    with safe_open(file, "pt") as tensors:
        return [(name, tensors.get_slice(name).get_dtype()) for name in tensors.keys()]  # noqa: SIM118  # no mapping


def _is_weight(name: str) -> bool:
    return name.rpartition(".")[2] in ("weight", "bias")


def _refuse(lacking: Sequence[str], shapes: dict[str, tuple[Any, Any]], unused: Sequence[str]) -> None:
    first = lacking[0]
    more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
    if first in shapes:
        found, wanted = shapes[first]
        raise ModelError(f"{first}{more} should have the shape {wanted} by config.json; in the weights it is {found}")
    instead = f"; it has {len(unused)} that the model has no place for, such as {unused[0]}" if unused else ""
    raise ModelError(f"{first}{more} are missing from the weights, and would be random{instead}")


def _require_finite(model: nn.Module) -> None:
    named = [*model.named_parameters(), *model.named_buffers()]
    wrong = [name for name, tensor in named if tensor.is_floating_point() and not _is_finite(name, tensor)]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ModelError(f"{wrong[0]}{more} hold NaN or infinite values")


def _is_finite(name: str, tensor: torch.Tensor) -> bool:
    # A buffer may hold infinities on purpose, such as a mask.
    return bool(torch.isfinite(tensor).all()) if name.endswith(("weight", "bias")) else not bool(tensor.isnan().any())


def reason_of(error: BaseException) -> str:
    """Write the message of a library's error on one line, with its type if the message alone says too little."""
    words = " ".join(str(error).split())[:300]
    if isinstance(error, LookupError | ArithmeticError | AssertionError) or not words:
        return f"{type(error).__name__} {words}".strip()
    return words


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bars and log messages of Transformers inside the block, unless the screen is verbose."""
    if is_verbose():
        yield
        return
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()

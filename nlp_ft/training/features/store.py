"""The files of a feature cache: named after all that their content depends on, and checked before each use.

The name of a boundary's folder is a hash of the weights below it, the token ids, the way of computing and the versions.
The next run finds the folder again; a run with other weights or data makes another one. The folder also holds the size
and a hash of its values, and a damaged one is made again. New folders replace those that were used longest ago.
"""

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from tqdm import tqdm

from nlp_ft.data.batch import model_inputs
from nlp_ft.data.batch_loading import load_batches
from nlp_ft.screen import is_quiet, say
from nlp_ft.training import durable
from nlp_ft.training.features.cache import FeatureCache, Features
from nlp_ft.training.features.spec import CacheSpec

SECONDS_OF_A_DAY = 86_400
VALUES, INDEX = "values", "index.json"
"""Names of the files in a folder: the values, and an index with their size, hash and key."""


def build_cache(
    spec: CacheSpec, boundaries: Sequence[int], accelerator: Accelerator, run_name: str
) -> FeatureCache | None:
    """Find the features on disk, or make them in one pass that all processes share; collective.

    Existing features are read from end to end and compared with their hash before they are used.

    Args:
        spec: the model, the rows and the folder.
        boundaries: the boundaries to cache.
        accelerator: the accelerator, which knows this process's share of the rows.
        run_name: distinguishes this run's unfinished files from those of another run.

    Returns:
        The cache; None if the disk refuses it, after a message that says so.
    """
    folders: dict[tuple[int, str], Path] = {}
    for split in spec.splits:
        for boundary, key in _keys(spec, boundaries, split, accelerator).items():
            folders[boundary, split] = spec.folder / key
    partial = {place: folder.with_name(f"{folder.name}.{run_name}.partial") for place, folder in folders.items()}
    missing: list[tuple[int, str]] = []
    try:
        with _together(accelerator):
            if accelerator.is_main_process:
                missing = _missing(spec, folders)
        [missing] = broadcast_object_list([missing])
        with _together(accelerator):
            if accelerator.is_main_process:
                _make_room(spec, folders.values(), sum(_size(spec, *place) for place in missing))
                for boundary, split in missing:
                    _allocate(spec, boundary, split, partial[boundary, split])
        with _together(accelerator):
            for split in dict.fromkeys(split for _, split in missing):
                of_split = [boundary for boundary, name in missing if name == split]
                _fill(spec, split, {boundary: partial[boundary, split] for boundary in of_split}, accelerator)
        with _together(accelerator):
            if accelerator.is_main_process:
                for place in missing:
                    _put_in_place(partial[place], folders[place])
        with _together(accelerator):
            features = _open_all(spec, folders)
    except OSError as error:
        say(f"feature cache: off, the disk refuses it: {error.strerror or error}\n")
        if accelerator.is_main_process:
            for folder in partial.values():
                shutil.rmtree(folder, ignore_errors=True)
        return None
    return FeatureCache(spec.prefix, features)


@contextmanager
def _together(accelerator: Accelerator) -> Iterator[None]:
    """Raise an error of the disk that one process meets on all of them; collective. Raises: OSError."""
    refusal: tuple[int | None, str] | None = None
    try:
        yield
    except OSError as error:
        refusal = error.errno, error.strerror or str(error)
    refusals = [found for found in gather_object([refusal]) if found is not None]
    if refusals:
        raise OSError(*refusals[0])


def _missing(spec: CacheSpec, folders: Mapping[tuple[int, str], Path]) -> list[tuple[int, str]]:
    """List the places whose features must be made; two splits of the same rows share a folder.

    Raises:
        OSError: a damaged folder cannot be removed.
    """
    missing = []
    for folder, place in {folder: place for place, folder in folders.items()}.items():
        problem = _problem(folder, _size(spec, *place)) if folder.exists() else None
        if problem:
            say(f"feature cache: {folder} {problem}, so it is made anew")
            shutil.rmtree(folder)
        if not folder.exists():
            missing.append(place)
    return missing


def _problem(folder: Path, size: int) -> str | None:
    """Say what is wrong with features on the disk; None if they are as they were written."""
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if not isinstance(index, dict) or index.get("key") != folder.name:
            return "is not what its name says"
        if (folder / VALUES).stat().st_size != size or index.get("bytes") != size:
            return "is not whole"
        return None if durable.content_hash(folder / VALUES) == index.get("hash") else "is damaged"
    except (OSError, ValueError):
        return "cannot be read"


def _keys(spec: CacheSpec, boundaries: Sequence[int], split: str, accelerator: Accelerator) -> dict[int, str]:
    """Name the features of each boundary by a hash of all that they depend on."""
    digest = blake2b(digest_size=16)
    columns = [name for name in spec.splits[split].encoded.column_names if name in ("input_ids", "token_type_ids")]
    for column in columns:
        for chunk in spec.splits[split].encoded.with_format("arrow")[:][column].chunks:
            digest.update(np.ascontiguousarray(chunk.flatten().to_numpy(zero_copy_only=False)).data)
    facts = {
        "lengths": blake2b(spec.splits[split].lengths.tobytes()).hexdigest(),
        "config": spec.model.config.to_json_string(),  # type: ignore[union-attr, operator]  # of Transformers
        "class": type(spec.model).__qualname__,
        "dtype": str(spec.dtype),
        "versions": [torch.__version__, transformers.__version__],
        # The following can change the last bits of the values.
        "precision": accelerator.mixed_precision,
        "batch_size": spec.batch_size,
        "num_processes": accelerator.num_processes,
        "device": accelerator.device.type,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for name, buffer in spec.model.named_buffers():
        digest.update(name.encode())
        digest.update(_bytes(buffer))
    keys: dict[int, str] = {}
    for layer in range(max(boundaries) + 1):
        for name in sorted(spec.layer_map.parameters(layer)):
            digest.update(name.encode())
            digest.update(_bytes(spec.model.get_parameter(name)))
        if layer in boundaries:
            keys[layer] = f"{digest.hexdigest()}-{layer}"
    return keys


def _bytes(tensor: torch.Tensor) -> Any:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _make_room(spec: CacheSpec, kept: Iterable[Path], needed: int) -> None:
    """Remove the features that were used longest ago, until there is room for `needed` bytes beside the kept ones."""
    spec.folder.mkdir(parents=True, exist_ok=True)
    others = {folder for folder in spec.folder.iterdir() if folder.is_dir()} - set(kept)
    unfinished = {folder for folder in others if folder.name.endswith(".partial")}
    for folder in unfinished:
        # Another run may still be writing a recent folder; an old one was left by a run that was killed.
        if time.time() - _last_written(folder) > SECONDS_OF_A_DAY:
            shutil.rmtree(folder, ignore_errors=True)
    needed += sum(map(bytes_in, set(kept)))
    sizes = {folder: bytes_in(folder) for folder in others - unfinished}
    for folder in sorted(sizes, key=_last_written):
        if sum(sizes.values()) + needed <= spec.budget:
            break
        shutil.rmtree(folder, ignore_errors=True)
        del sizes[folder]


def bytes_in(folder: Path) -> int:
    """Count the bytes of the files in a folder; files that another run removes meanwhile count 0."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def _last_written(folder: Path) -> float:
    """Find when a folder or its values were last written, in seconds; 0 if another run has removed it."""
    times = [0.0]
    for place in (folder, folder / VALUES):
        with suppress(FileNotFoundError):
            times.append(place.stat().st_mtime)
    return max(times)


def _allocate(spec: CacheSpec, boundary: int, split: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    size = _size(spec, boundary, split)
    with (folder / VALUES).open("wb") as stream:
        stream.truncate(size)
        if size and hasattr(os, "posix_fallocate"):
            # Claims the disk space now, so that a full disk shows before the pass and not halfway.
            os.posix_fallocate(stream.fileno(), 0, size)


def _size(spec: CacheSpec, boundary: int, split: str) -> int:
    """Count the bytes of the values of one split."""
    return int(spec.vectors_of(boundary, split).sum()) * spec.prefix.hidden_size(boundary) * spec.dtype.itemsize


def _open_all(spec: CacheSpec, folders: Mapping[tuple[int, str], Path]) -> dict[int, dict[str, Features]]:
    """Open the features of each boundary and split, and mark their folders as used now."""
    features: dict[int, dict[str, Features]] = {}
    for (boundary, split), folder in folders.items():
        with suppress(PermissionError):  # the folder may belong to another user
            os.utime(folder)
        features.setdefault(boundary, {})[split] = _open(spec, boundary, split, folder)
    return features


def _open(spec: CacheSpec, boundary: int, split: str, folder: Path, to_write: bool = False) -> Features:
    lengths, hidden_size = spec.vectors_of(boundary, split), spec.prefix.hidden_size(boundary)
    return Features(folder / VALUES, lengths, hidden_size, spec.dtype, to_write)


def _put_in_place(partial: Path, folder: Path) -> None:
    values = partial / VALUES
    index = {"key": folder.name, "bytes": values.stat().st_size, "hash": durable.content_hash(values)}
    (partial / INDEX).write_text(json.dumps(index), encoding="utf-8")
    durable.sync_tree(partial)
    try:
        durable.rename(partial, folder)
    except OSError:
        if _problem(folder, values.stat().st_size):
            raise
        shutil.rmtree(partial)  # another run has put the same features in place first


def _fill(spec: CacheSpec, split: str, folders: Mapping[int, Path], accelerator: Accelerator) -> None:
    """Compute this process's share of one pass over a split."""
    stored = {boundary: _open(spec, boundary, split, folder, to_write=True) for boundary, folder in folders.items()}
    encoded, lengths = spec.splits[split].encoded, spec.splits[split].lengths
    mine = np.argsort(-lengths, kind="stable")[accelerator.process_index :: accelerator.num_processes]
    batches = [mine[i : i + spec.batch_size] for i in range(0, len(mine), spec.batch_size)]
    loaded = load_batches(encoded, batches, spec.collator)
    shown = tqdm(
        zip(batches, loaded),
        total=len(batches),
        desc=f"frozen blocks over {split}",
        leave=False,
        disable=is_quiet() or None,
    )
    with accelerator.autocast():
        for rows, batch in shown:
            inputs = {key: value.to(accelerator.device) for key, value in model_inputs(batch).items()}
            for boundary, hidden in spec.prefix.capture(inputs, list(stored)).items():
                if spec.prefix.is_pooled(boundary):
                    vectors = hidden
                elif spec.prefix.takes_one_vector(boundary):
                    vectors = hidden[:, 0]
                else:
                    vectors = hidden[inputs["attention_mask"].bool()]
                stored[boundary].write(rows, vectors.to("cpu", spec.dtype))

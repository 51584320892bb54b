"""Ways to break bytes, JSON and tensors, drawn from a generator."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VALUES: list[Any] = [
    None, True, False, -1, 0, 1, 2.5, 1e308, float("nan"), float("inf"), 10**12, 10**30, "", "x", "1", "\x1b[2Jx",
    "a\nerror: forged", "\u202e", "../../x", "x" * 3000, [], [1], [None], {}, {"a": 1}, {"0": None},
]  # fmt: skip
JUNK = [b"\0", b"\x1b[2J", b"\xff\xfe", b"\n", b"\r", b'"', b",", b"\t", b"{", b"]", b"\xe2\x80\xa8", b"\0" * 64]
OTHERS = [b"", b"\n", b"\0" * 200, b"\x89PNG\r\n\x1a\n" + bytes(60), b"PK\x03\x04" + bytes(60), b"PAR1", b"null", b"[]",
          b"{}", b"\xff\xfe" + "text,label".encode("utf-16-le"), bytes(range(256)), b"{" * 5000]  # fmt: skip


def damaged(content: bytes, generator: random.Random) -> tuple[str, bytes]:
    """(what was done, the bytes after it); never the bytes as they were."""
    result, said = bytearray(content), "emptied"
    place = generator.randrange(max(len(content), 1))
    match generator.randrange(8) if content else 7:
        case 0:
            said = f"cut at {place}"
            del result[place:]
        case 1:
            said = f"without its first {place + 1}"
            del result[: place + 1]
        case 2 | 3:
            bit = generator.randrange(8)
            said = f"bit {bit} of byte {place} flipped"
            result[place] ^= 1 << bit
        case 4:
            junk = generator.choice(JUNK)
            said = f"{junk[:8]!r} put at {place}"
            result[place:place] = junk
        case 5:
            size = generator.randrange(1, 200)
            said = f"{size} zeroed at {place}"
            result[place : place + size] = bytes(len(result[place : place + size]))
        case 6:
            size = generator.randrange(1, 400)
            said = f"{size} doubled at {place}"
            result[place:place] = result[place : place + size]
        case _:
            other = generator.choice(OTHERS)
            said = f"is {other[:12]!r}"
            result[:] = other
    if bytes(result) == content:
        return damaged(content, generator)
    return said, bytes(result)


def damage_file(file: str, seed: object) -> Callable[[Path], None]:
    """A `prepare` that breaks the bytes of a file of the workplace, or of the first that fits a pattern."""

    def prepare(work: Path) -> None:
        [path, *_] = sorted(work.glob(file))
        path.write_bytes(damaged(path.read_bytes(), random.Random(str(seed)))[1])

    return prepare


def change_json(file: str, seed: object) -> Callable[[Path], None]:
    """A `prepare` that drops, renames or replaces one entry of a JSON file."""

    def prepare(work: Path) -> None:
        [path, *_] = sorted(work.glob(file))
        generator = random.Random(str(seed))
        values = json.loads(path.read_text())
        holder, key = generator.choice(list(places(values)))
        match generator.randrange(5):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[f"{key}_"] = holder.pop(key)
            case _:
                holder[key] = copy.deepcopy(generator.choice([v for v in VALUES if v != holder[key]]))
        path.write_text(json.dumps(values))

    return prepare


def places(values: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key or index) of every entry."""
    entries = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in list(entries):
        yield values, key
        yield from places(value)


def change_tensors(file: str, seed: object, do: str) -> Callable[[Path], None]:
    """A `prepare` that changes one tensor of a safetensors file, drawn by the seed; `do` is a key of TENSORS."""

    def prepare(work: Path) -> None:
        from safetensors.numpy import load_file, save_file

        [path, *_] = sorted(work.glob(file))
        tensors = load_file(path)
        name = random.Random(str(seed)).choice(sorted(name for name in tensors if "pooler" not in name))
        TENSORS[do](tensors, name)
        save_file({key: value.copy() for key, value in tensors.items()}, path, metadata={"format": "pt"})

    return prepare


def _set(make: Callable[[Any], Any]) -> Callable[[dict[str, Any], str], None]:
    def change(tensors: dict[str, Any], name: str) -> None:
        tensors[name] = make(tensors[name])

    return change


def _with(value: float) -> Callable[[Any], Any]:
    def make(tensor: Any) -> Any:
        tensor = tensor.copy()
        tensor.flat[0] = value
        return tensor

    return make


def _prefix(tensors: dict[str, Any]) -> None:
    for key in list(tensors):
        tensors[f"module.{key}"] = tensors.pop(key)


TENSORS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "dropped": lambda tensors, name: tensors.__delitem__(name),
    "renamed": lambda tensors, name: tensors.update({f"{name}_": tensors.pop(name)}),
    "prefixed": lambda tensors, name: _prefix(tensors),
    "all dropped": lambda tensors, name: tensors.clear(),
    "NaN": _set(_with(float("nan"))),
    "infinite": _set(_with(float("inf"))),
    "whole numbers": _set(lambda tensor: tensor.astype("int64")),
    "flags": _set(lambda tensor: tensor.astype("bool")),
    "longer": _set(lambda tensor: tensor.repeat(2, 0)),
    "shorter": _set(lambda tensor: tensor[:-1]),
    "one more axis": _set(lambda tensor: tensor[None]),
    "scalar": _set(lambda tensor: tensor.reshape(-1)[:1].reshape(())),
}
"""Each leaves no right result where every tensor counts."""

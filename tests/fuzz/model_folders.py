"""Broken pretrained models: their configuration, weights and tokenizer."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.fuzz.damage import TENSORS, change_json, change_tensors, damage_file
from tests.fuzz.driver import Trial

COMMANDS = {
    "layers": ("layers", "encoder"),
    "audit": ("audit", "good.yaml"),
    "validate": ("validate", "good.yaml"),
    "train": ("train", "good.yaml", "training.duration=2st"),
}
NAMED = ("encoder", "model.", "data.max_length")
TRAP = "import pathlib\npathlib.Path('foreign_code_ran').write_text('')\n"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def trials(seed: int, count: int) -> Iterator[Trial]:
    """All structures, then so many damaged folders."""
    for do in TENSORS:
        for command in ("validate", "train"):
            prepare = change_tensors("encoder/model.safetensors", seed, do)
            yield _trial(f"weights {do}", command, prepare, must_refuse=True)
    for name, change in STRUCTURES.items():
        for command in ("layers", "train"):
            yield _trial(name, command, change)
    for number in range(count):
        draw = f"{seed} {number}"
        generator = random.Random(draw)
        command = generator.choice(list(COMMANDS))
        match number % 4:
            case 0 | 1:
                yield _trial(f"config.json changed {draw}", command, change_json("encoder/config.json", draw))
            case 2:
                file = generator.choice(FILES)
                yield _trial(f"{file} damaged {draw}", command, damage_file(f"encoder/{file}", draw))
            case _:
                file = generator.choice(["tokenizer.json", "tokenizer_config.json"])
                yield _trial(f"{file} changed {draw}", command, change_json(f"encoder/{file}", draw))


def _trial(name: str, command: str, prepare: Callable[[Path], None], must_refuse: bool = False) -> Trial:
    writes = ("run",) if command == "train" else ()
    return Trial(f"model: {name}, {command}", prepare, COMMANDS[command], NAMED, None, must_refuse, writes=writes)


def _set(**entries: object) -> Callable[[Path], None]:
    def prepare(work: Path) -> None:
        file = work / "encoder/config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))
        (work / "encoder/trap.py").write_text(TRAP)

    return prepare


def _without(file: str) -> Callable[[Path], None]:
    return lambda work: (work / "encoder" / file).unlink()


def _pickled_index(work: Path) -> None:
    encoder = work / "encoder"
    (encoder / "model.safetensors").rename(encoder / "pytorch_model.bin")
    index = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": "pytorch_model.bin"}}
    (encoder / "model.safetensors.index.json").write_text(json.dumps(index))


def _a_file(work: Path) -> None:
    shutil.rmtree(work / "encoder")
    (work / "encoder").write_text("no folder")


STRUCTURES: dict[str, Callable[[Path], None]] = {
    **{f"no {file}": _without(file) for file in FILES},
    "foreign code": _set(auto_map={"AutoModel": "trap.Trap", "AutoConfig": "trap.Trap"}),
    "foreign code of an unknown type": _set(model_type="trap", auto_map={"AutoConfig": "trap.Trap"}),
    "unknown type": _set(model_type="telepathy"),
    "another type": _set(model_type="distilbert"),
    "an image model": _set(model_type="vit"),
    "a composite": _set(model_type="clip"),
    "more blocks than weights": _set(num_hidden_layers=3),
    "fewer blocks than weights": _set(num_hidden_layers=1),
    "no blocks": _set(num_hidden_layers=0),
    "a million blocks": _set(num_hidden_layers=1_000_000),
    "heads that do not divide": _set(num_attention_heads=3),
    "few positions": _set(max_position_embeddings=4),
    "unknown activation": _set(hidden_act="telepathy"),
    "dropout 7": _set(hidden_dropout_prob=7),
    "small vocabulary": _set(vocab_size=3),
    "labels with holes": _set(id2label={"0": "a", "2": "b"}),
    "quantized": _set(quantization_config={"quant_method": "telepathy"}),
    "attention of no kind": _set(attn_implementation="telepathy"),
    "an index of pickles": _pickled_index,
    "a file": _a_file,
    "nothing": lambda work: shutil.rmtree(work / "encoder"),
}

"""Broken things that a run stored: checkpoints, feature caches, and run folders that predict and eval read."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.damage import TENSORS, change_json, change_tensors, damage_file
from tests.fuzz.driver import Trial
from tests.fuzz.model_folders import TRAP
from tests.fuzz.workplace import CACHED, GOING

STEP = "going.partial/checkpoints/step-00000009"
RESUME = ("train", "good.yaml", *GOING)
OF_CHECKPOINT = ("hashes.json", "metrics.jsonl", "model.safetensors", "optimizer.safetensors", "state.json")
OTHER_SETTINGS = (
    "seed=1", "optimizer.lr=1e-4", "optimizer.betas=[0.8, 0.9]", "data.max_length=16", "strategy=full",
    "training.per_device_batch_size=4", "data.validation=test.csv", "training.duration=3ep", "model.pooling=cls",
    "schedule.warmup=2st", "training.precision=bf16", "loss.label_smoothing=0.1",
)  # fmt: skip
OF_RUN = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "recipe.yaml", "summary.json",
          "metrics.jsonl", "README.md")  # fmt: skip
FOREIGN_TOKENIZER = {"auto_map": {"AutoTokenizer": ["trap.T", "trap.T"]}, "tokenizer_class": "T"}
ON_RUNS = {"predict": ("predict", "finished", "the cat"), "eval": ("eval", "finished")}
HARMLESS = {"COLUMNS", "LANG", "NO_COLOR", "TERM"}
MACHINES: tuple[dict[str, str], ...] = (
    {"WORLD_SIZE": "2"}, {"WORLD_SIZE": "x"}, {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}, {"RANK": "x"},
    {"LOCAL_RANK": "x"}, {"ACCELERATE_MIXED_PRECISION": "telepathy"}, {"ACCELERATE_DYNAMO_BACKEND": "telepathy"},
    {"ACCELERATE_USE_CPU": "maybe"}, {"ACCELERATE_USE_FSDP": "maybe"}, {"NLP_FT_CACHE": ""}, {"NLP_FT_CACHE": " "},
    {"NLP_FT_CACHE": "relative"}, {"NLP_FT_CACHE": "/dev/null/x"}, {"XDG_CACHE_HOME": ""}, {"HOME": ""},
    {"HOME": "/nonexistent"}, {"TMPDIR": "/nonexistent"}, {"COLUMNS": "x"}, {"COLUMNS": "1"}, {"LANG": "C"},
    {"CUDA_VISIBLE_DEVICES": "x"}, {"OMP_NUM_THREADS": "x"}, {"NO_COLOR": "1"}, {"TERM": "dumb"},
)  # fmt: skip


def checkpoints(seed: int, count: int) -> Iterator[Trial]:
    """A run that was killed, broken and resumed: it ends with the weights of the unbroken run, or is refused."""
    for setting in OTHER_SETTINGS:
        yield Trial(f"checkpoint: other {setting}", _nothing, (*RESUME, setting, "--resume"), must_refuse=True)
    for do in TENSORS:
        for file in ("model.safetensors", "optimizer.safetensors"):
            yield _resumed(f"{file} {do}", change_tensors(f"{STEP}/{file}", seed, do))
    for name, change in CHECKPOINTS.items():
        yield _resumed(name, change, must_succeed=name in UNHARMED)
    for number in range(count):
        draw = f"{seed} {number}"
        file = random.Random(draw).choice(OF_CHECKPOINT)
        broken = change_json if file.endswith(".json") and number % 2 else damage_file
        yield _resumed(f"{file} damaged {draw}", broken(f"{STEP}/{file}", draw))
    for number in range(count // 4):
        file = random.Random(f"{seed} {number}").choice(["recipe.yaml", "run.json"])
        yield _resumed(f"{file} damaged {seed} {number}", damage_file(f"going.partial/{file}", f"{seed} {number}"))
    for name in ("train.csv", "validation.csv", "encoder/tokenizer.json", "encoder/model.safetensors"):
        yield _resumed(f"{name} damaged", damage_file(name, seed))


def caches(seed: int, count: int) -> Iterator[Trial]:
    """Damaged features, then the same training: the weights are those of before."""
    for name, change in CACHES.items():
        yield _trained_again(name, change, must_succeed=True)
    for number in range(count):
        draw = f"{seed} {number}"
        file = random.Random(draw).choice(["values", "index.json"])
        broken = change_json if file == "index.json" and number % 2 else damage_file
        yield _trained_again(f"{file} damaged {draw}", broken(f"cache/features/*/{file}", draw))


def runs(seed: int, count: int) -> Iterator[Trial]:
    """Finished runs, broken, and what reads them."""
    for do in TENSORS:
        for command in ON_RUNS:
            yield _read(
                f"weights {do}", command, change_tensors("finished/model.safetensors", seed, do), must_refuse=True
            )
    for name, change in RUNS.items():
        for command in ON_RUNS:
            yield _read(name, command, change)
    for number in range(count):
        draw = f"{seed} {number}"
        generator = random.Random(draw)
        file, command = generator.choice(OF_RUN), generator.choice(list(ON_RUNS))
        broken = change_json if file.endswith(".json") and number % 3 else damage_file
        yield _read(f"{file} damaged {draw}", command, broken(f"finished/{file}", draw))


def machines() -> Iterator[Trial]:
    """Wrong surroundings of a command."""
    for environment in MACHINES:
        said = " ".join(f"{key}={value!r}" for key, value in environment.items())
        harmless = environment.keys() <= HARMLESS
        rest: dict[str, Any] = {"must_succeed": harmless, "writes": ("run",), "environment": environment}
        for arguments in (("predict", "finished", "the cat"), ("train", "good.yaml", "strategy=head_only")):
            yield Trial(f"machine: {said}, {arguments[0]}", _nothing, arguments, **rest)
    out = ("predict", "finished", "--file", "test.csv", "--output")
    yield Trial("machine: a file beside --output", _user_file, (*out, "out.csv"), (), None, False, True, ("out.csv",))
    for name, prepare, stopped in STOPPED:
        yield Trial(f"machine: {name}", prepare, stopped, must_refuse=True, keeps=("run.partial", "going.partial"))
    for size in (2000, 20_000):
        full: dict[str, Any] = {"must_refuse": True, "keeps": ("run.partial", "going.partial"), "most_bytes": size}
        yield Trial(f"machine: disk full at {size}, train", _nothing, ("train", "good.yaml"), **full)
        yield Trial(f"machine: disk full at {size}, resume", _nothing, (*RESUME, "--resume"), **full)
        yield Trial(
            f"machine: disk full at {size}, predict",
            _nothing,
            (*out, "out.jsonl"),
            writes=("out.jsonl",),
            most_bytes=size,
        )
    yield Trial("machine: --output taken", _user_file, (*out, "mine.csv"), must_refuse=True)
    yield Trial("machine: --output in no folder", _nothing, (*out, "no/out.csv"), must_refuse=True)
    yield Trial(
        "machine: run.partial of the user's", _user_folder, ("train", "good.yaml", "--overwrite"), must_refuse=True
    )
    yield Trial("machine: run.partial to resume", _user_folder, ("train", "good.yaml", "--resume"), must_refuse=True)
    yield Trial("machine: a finished run", _nothing, ("train", "good.yaml", "output_dir=finished"), must_refuse=True)
    yield Trial(
        "machine: output_dir a model",
        _nothing,
        ("train", "good.yaml", "output_dir=encoder", "--overwrite"),
        must_refuse=True,
    )


def _resumed(name: str, prepare: Callable[[Path], None], must_succeed: bool = False) -> Trial:
    same, writes = _same_weights("going", "finished"), ("going", "going.partial")
    return Trial(f"checkpoint: {name}", prepare, (*RESUME, "--resume"), (), same, False, must_succeed, writes)


def _trained_again(name: str, prepare: Callable[[Path], None], must_succeed: bool = False) -> Trial:
    arguments, same = ("train", "good.yaml", *CACHED, "output_dir=again"), _same_weights("again", "cached")
    return Trial(f"cache: {name}", prepare, arguments, (), same, False, must_succeed, ("again",))


def _read(name: str, command: str, prepare: Callable[[Path], None], must_refuse: bool = False) -> Trial:
    return Trial(f"run: {name}, {command}", prepare, ON_RUNS[command], ("finished",), None, must_refuse)


def _same_weights(run: str, reference: str) -> Callable[[Path, str], str | None]:
    def check(work: Path, out: str) -> str | None:
        if list(work.glob("cache/**/*partial*")):
            return "unfinished features are left"
        found, expected = ((work / name / "model.safetensors").read_bytes() for name in (run, reference))
        return None if found == expected else f"{run} has not the weights of {reference}"

    return check


def _nothing(work: Path) -> None:
    pass


def _user_file(work: Path) -> None:
    (work / "mine.csv").write_text("mine")
    (work / "out.csv.partial").write_text("mine")


def _user_folder(work: Path) -> None:
    (work / "run.partial").mkdir()
    (work / "run.partial/mine").write_text("mine")


def _pipe(name: str) -> Callable[[Path], None]:
    return lambda work: os.mkfifo(work / name)


def _without(place: str) -> Callable[[Path], None]:
    def prepare(work: Path) -> None:
        [path, *_] = sorted(work.glob(place))
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return prepare


def _as_folder(place: str) -> Callable[[Path], None]:
    def prepare(work: Path) -> None:
        [path, *_] = sorted(work.glob(place))
        path.unlink()
        path.mkdir()

    return prepare


def _copied(source: str, target: str) -> Callable[[Path], None]:
    def prepare(work: Path) -> None:
        if (work / source).is_dir():
            shutil.copytree(work / source, work / target)
        else:
            shutil.copyfile(work / source, work / target)

    return prepare


def _swapped(work: Path) -> None:
    first, second = sorted(work.glob("cache/features/*/values"))[:2]
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def _with(file: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def prepare(work: Path) -> None:
        path = work / "finished" / file
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))
        (work / "finished/trap.py").write_text(TRAP)

    return prepare


def _config(**entries: object) -> Callable[[Path], None]:
    return _with("config.json", lambda config: config.update(entries))


def _labels(change: Callable[[dict[str, str]], object]) -> Callable[[Path], None]:
    return _with("config.json", lambda config: change(config["id2label"]))


CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    "as it was": _nothing,
    **{f"no {file}": _without(f"{STEP}/{file}") for file in OF_CHECKPOINT},
    **{f"{file} a folder": _as_folder(f"{STEP}/{file}") for file in OF_CHECKPOINT},
    "no recipe.yaml": _without("going.partial/recipe.yaml"),
    "no run.json": _without("going.partial/run.json"),
    "no checkpoints": _without("going.partial/checkpoints"),
    "beyond the end": _copied(STEP, "going.partial/checkpoints/step-00000099"),
    "a later step's name": _copied(STEP, "going.partial/checkpoints/step-00000012"),
    "an odd name": _copied(STEP, "going.partial/checkpoints/step-x"),
    "a half one": _copied(f"{STEP}/state.json", "going.partial/checkpoints/writing"),
    "weights for moments": _copied("finished/model.safetensors", f"{STEP}/optimizer.safetensors"),
    "another model's weights": _copied("encoder/model.safetensors", f"{STEP}/model.safetensors"),
    "a finished run's name is taken": _copied("train.csv", "going"),
}
STOPPED: tuple[tuple[str, Callable[[Path], None], tuple[str, ...]], ...] = (
    ("a pipe for a recipe", _pipe("pipe.yaml"), ("validate", "pipe.yaml")),
    ("a pipe for rows to train on", _pipe("pipe.csv"), ("train", "good.yaml", "data.train=pipe.csv")),
    ("a pipe for rows to predict", _pipe("pipe.csv"), ("predict", "finished", "--file", "pipe.csv")),
    ("a pipe for rows to evaluate", _pipe("pipe.jsonl"), ("eval", "finished", "--data", "pipe.jsonl")),
    ("a pipe for a model", _pipe("pipe"), ("train", "good.yaml", "model.name=pipe")),
    ("a pipe for a run", _pipe("pipe"), ("predict", "pipe", "the cat")),
    ("a pipe at output_dir", _pipe("run"), ("train", "good.yaml", "--overwrite")),
    ("no room at --output", _nothing, ("predict", "finished", "--file", "test.csv", "--output", "/dev/full")),
)
UNHARMED = {"as it was", "a half one"}
CACHES: dict[str, Callable[[Path], None]] = {
    "as it was": _nothing,
    "no values": _without("cache/features/*/values"),
    "no index": _without("cache/features/*/index.json"),
    "no folder": _without("cache/features/*"),
    "no cache": _without("cache"),
    "values a folder": _as_folder("cache/features/*/values"),
    "index a folder": _as_folder("cache/features/*/index.json"),
    "values of others": _swapped,
    "a file in its place": _copied("train.csv", "cache/features/strange"),
    "a strange folder": _copied("encoder", "cache/features/strange"),
}
RUNS: dict[str, Callable[[Path], None]] = {
    **{f"no {file}": _without(f"finished/{file}") for file in OF_RUN},
    **{f"{file} a folder": _as_folder(f"finished/{file}") for file in OF_RUN},
    "foreign code": _config(auto_map={"AutoModel": "trap.Trap", "AutoConfig": "trap.Trap"}),
    "a foreign tokenizer": _with("tokenizer_config.json", lambda values: values.update(FOREIGN_TOKENIZER)),
    "a label fewer": _labels(lambda labels: labels.popitem()),
    "a label twice": _labels(lambda labels: labels.update({"0": "size"})),
    "labels with escape codes": _labels(lambda labels: labels.update({"0": "\x1b[2Ja\nerror: b"})),
    "a hole in the ids": _labels(lambda labels: labels.update({"7": labels.pop("1")})),
    "unknown pooling": _config(pooling="telepathy"),
}

"""Each bad recipe, data set or model ends in one clear message and exit code 2; bad run folders: test_bad_runs.py."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nlp_ft.cli import main
from nlp_ft.recipe.loader import dump_yaml
from tests.tiny import save_tiny_encoder, tiny_recipe

GOOD_ROWS = "the cat,animal\nthe dog,animal\nred,colour\nblue,colour\nbig,size\nsmall,size\n"
FILES: dict[str, str | bytes] = {
    "a_list.yaml": "- train\n",
    "a_cycle.yaml": "data: &rows [*rows]\n",
    "binary.yaml": bytes(range(256)),
    "deep.yaml": "[" * 1000,
    "empty.yaml": "",
    "syntax.yaml": "data:\n  train: [a.csv\nmodel: x\n",
    "twice.yaml": "seed: 1\nseed: 2\n",
    "binary.csv": bytes(range(256)),
    "broken.jsonl": '{"text": "red", "label"\n',
    "empty.csv": "",
    "empty_label.csv": "text,label\nred,colour\nbig,\nthe cat,animal\n",
    "floats.csv": "text,label\nred,0.5\nbig,1.5\n",
    "header.csv": "text,label\n",
    "latin.csv": ("text,label\n" + GOOD_ROWS + "caf\u00e9,size\n").encode("latin-1"),
    "lonely.csv": "text,label\nred,colour\nbig,size\nthe,nothing\n",
    "long.csv": "text,label\n" + GOOD_ROWS + "the " * 99 + "cat,animal\n",
    "new_label.csv": "text,label\nred,colors\n",
    "one_class.csv": "text,label\nred,colour\nblue,colour\n",
    "other_columns.csv": "txt,label\n" + GOOD_ROWS,
    "ragged.csv": "text,label\nred,colour\nbig,size,more,and more\n",
    "rows.xlsx": "text,label\n",
}
BAD_RECIPES = {
    "missing.yaml": "there is no such file",
    "folder.yaml": "Is a directory",
    "binary.yaml": "not UTF-8",
    "empty.yaml": "must hold `key: value` lines, got nothing",
    "a_list.yaml": "must hold `key: value` lines, got '- train",
    "syntax.yaml": "line 3, column 6: not valid YAML: expected ',' or ']'",
    "twice.yaml": "line 2, column 1: not valid YAML: seed is given twice",
    "a_cycle.yaml": "an alias holds itself",
    "deep.yaml": "not valid YAML",
}
BAD_SETTINGS = [
    (["training.durations=3ep"], ["training.durations is not a key", "did you mean duration?"]),
    (["learning_rate=1"], ["learning_rate is not a key of a recipe"]),
    (["layer_decay=0.9"], ["layer_decay is not a key", "did you mean optimizer.layer_decay?"]),
    (["optimizer.lr=-1e-3"], ["optimizer.lr must be in (0, 10), got -0.001"]),
    (["optimizer.lr=.nan"], ["optimizer.lr must be in (0, 10), got nan"]),
    (["optimizer.lr=fast"], ["optimizer.lr must be", "number", "got 'fast'"]),
    (["optimizer.layer_decay=9.0"], ["optimizer.layer_decay must be in (0, 1], got 9.0; did you mean 0.9?"]),
    (["training.duration=3"], ["training.duration must be", "such as 3ep", "did you mean 3ep or 3st?"]),
    (["strategy=lrd"], ["strategy.name must be", "got 'lrd'; did you mean llrd?"]),
    (["strategy=top_layers", "strategy.trainable_blocks=3"], ["strategy.trainable_blocks must be at most 2", "got 3"]),
    (["loss.class_weights={animal: 1, colour: 1, sise: 2}"], ["loss.class_weights", "labels", "sise, size"]),
    (["schedule.warmup=500st"], ["schedule.warmup", "0 to 14 steps", "got 500"]),
    (["schedule.warmup=500st", "training.max_tokens_per_batch=24"], ["schedule.warmup", "0 to 34 steps", "got 500"]),
    (["optimizer.lr"], ["'optimizer.lr' must have the form key=value, such as optimizer.lr=1e-4"]),
    (["output_dir="], ["output_dir is missing"]),
]
BAD_DATA = [
    (["data.train=nope.csv"], ["data.train", "there is no nope.csv"]),
    (["data.train=other_columns.csv"], ["other_columns.csv", "data.text is 'text'", "did you mean txt?"]),
    (["data.label=lable"], ["data.label is 'lable'", "the columns are: text, label", "did you mean label?"]),
    (["data.train=empty.csv"], ["data.train", "empty.csv is empty"]),
    (["data.train=header.csv"], ["data.train", "header.csv", "no rows"]),
    (["data.train=binary.csv"], ["data.train", "binary.csv is a binary file"]),
    (["data.train=latin.csv"], ["data.train", "latin.csv", "is not UTF-8"]),
    (
        ["data.train=ragged.csv"],
        ["data.train", "ragged.csv cannot be read", "Expected 2 fields in line 3, saw 4"],
    ),
    (["data.train=broken.jsonl"], ["data.train", "broken.jsonl cannot be read as json"]),
    (["data.train=rows.xlsx"], ["data.train", "must all be one of .csv, .tsv, .jsonl, .json, .parquet, got .xlsx"]),
    (["data.train=folder.yaml"], ["data.train", "folder.yaml is a folder"]),
    (["data.train=package:no_such_package/a.csv"], ["no_such_package is not installed; try: pip install"]),
    (["data.train=one_class.csv"], ["two labels or more", "column 'label' of train holds only", "colour"]),
    (["data.test=new_label.csv"], ["test", "label", "train", "colors", "did you mean colour?"]),
    (["data.train=empty_label.csv"], ["1 row", "of train", "no label in column 'label'", "1 (from 0)"]),
    (["data.train=floats.csv"], ["labels must be strings or whole", "'label' of train holds fractions such as 0.5"]),
    (["data.train=lonely.csv", "data.validation=50%"], ["data.validation: 50%", "by class", "no class has two rows"]),
    (["data.train=long.csv", "model.name=short", "data.max_length=64"], ["data.max_length", "at most 16", "got 64"]),
]
BAD_MODELS = [
    (["model.name=package:no_such_package/model"], ["no_such_package is not installed; try: pip install"]),
    (["model.name=package:nlp_ft/no_such_folder"], ["the package nlp_ft holds no no_such_folder"]),
    (["model.name=no/such/folder"], ["model.name: no/such/folder", "folder"]),
    (["model.name=folder.yaml"], ["model.name: folder.yaml", "no config.json"]),
    (["model.name=without_weights"], ["model.name: without_weights", "weights", "model.safetensors"]),
    (["model.name=corrupt_weights"], ["model.name: corrupt_weights", "weights cannot be loaded", "header"]),
    (["model.name=cut_weights"], ["model.name: cut_weights", "weights cannot be loaded", "deserializing header"]),
    (["model.name=corrupt_config"], ["model.name: corrupt_config", "config.json", "not a valid JSON"]),
    (["model.name=listed_config"], ["model.name: listed_config", "config.json"]),
    (["model.name=unknown_type"], ["model.name: unknown_type", "`telepathy`"]),
    (["model.name=without_tokenizer"], ["model.name: without_tokenizer", "tokenizer"]),
    (["model.name=corrupt_tokenizer"], ["model.name: corrupt_tokenizer", "tokenizer cannot be loaded"]),
    (["model.name=without_blocks"], ["model.layer_rules: PooledClassifier has no list of blocks"]),
    (["model.layer_rules=[[emb, 0], [poolr, head]]"], ["model.layer_rules: rule ('poolr', 'head') matches no"]),
    (["model.layer_rules=[[emb, first]]"], ["model.layer_rules.0.1 must be", "'head'", "got 'first'"]),
    (["model.name=distilbert", "model.pooling=pooler"], ["model.pooling: distilbert has no pooler; use cls, mean"]),
]
CASES = [*BAD_SETTINGS, *BAD_DATA, *BAD_MODELS]


class Trap:
    """Unpickled, it makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


def damaged_copy(model: Path, name: str, file: str, content: bytes | None) -> Path:
    """A copy of a model's folder with other content in one file, or without it."""
    copy = shutil.copytree(model, model.with_name(name))
    if content is None:
        (copy / file).unlink()
    else:
        (copy / file).write_bytes(content)
    return copy


def save_inputs(folder: Path) -> Path:
    """A good recipe, `good.yaml`, with what it needs, and the bad inputs beside it."""
    data = {"train": "train.csv", "validation": "validation.csv"}
    recipe = tiny_recipe(folder, Path("tiny"), output_dir="run")
    (folder / "good.yaml").write_text(dump_yaml({**recipe, "data": data}))
    (folder / "folder.yaml").mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    tiny = save_tiny_encoder(folder / "tiny")
    save_tiny_encoder(folder / "distilbert", "distilbert")
    save_tiny_encoder(folder / "short", max_position_embeddings=16)
    save_tiny_encoder(folder / "without_blocks", num_hidden_layers=0)
    weights = (tiny / "model.safetensors").read_bytes()
    damaged_copy(tiny, "without_weights", "model.safetensors", None)
    damaged_copy(tiny, "corrupt_weights", "model.safetensors", b"no weights at all")
    damaged_copy(tiny, "cut_weights", "model.safetensors", weights[:-1000])
    damaged_copy(tiny, "corrupt_config", "config.json", b"{ model")
    damaged_copy(tiny, "listed_config", "config.json", b"[]")
    damaged_copy(tiny, "unknown_type", "config.json", b'{"model_type": "telepathy"}')
    damaged_copy(tiny, "corrupt_tokenizer", "tokenizer.json", b"{ tokens")
    (damaged_copy(tiny, "without_tokenizer", "tokenizer.json", None) / "tokenizer_config.json").unlink()
    torch.save(Trap(), damaged_copy(tiny, "pickled", "model.safetensors", None) / "pytorch_model.bin")
    return folder


def work_in(folder: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the folder the current one, with links to the inputs in it."""
    for entry in inputs.iterdir():
        (folder / entry.name).symlink_to(entry)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs, made once."""
    return save_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def workplace(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, for one test: the inputs by their names, and no run."""
    return work_in(tmp_path, inputs, monkeypatch)


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the command ends with, after checking that it is an error and that no run is left."""
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert exit_info.value.code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def assert_fails(capsys: pytest.CaptureFixture[str], arguments: list[str], fragments: list[str]) -> None:
    line = failure(capsys, *arguments)
    assert [fragment for fragment in fragments if fragment not in line] == [], line
    assert sorted(Path().glob("run*")) == []


@pytest.mark.parametrize("command", ["train", "validate", "layers"])
@pytest.mark.parametrize(("file", "fragment"), BAD_RECIPES.items(), ids=BAD_RECIPES)
def test_a_file_that_is_no_recipe_is_refused(
    file: str, fragment: str, command: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_fails(capsys, [command, file], [file, fragment])


@pytest.mark.parametrize("command", ["train", "validate"])
@pytest.mark.parametrize(("changes", "fragments"), CASES, ids=[" ".join(changes) for changes, _ in CASES])
def test_what_cannot_be_trained_is_refused_in_one_line_before_anything_is_written(
    changes: list[str], fragments: list[str], command: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_fails(capsys, [command, "good.yaml", *changes], fragments)


@pytest.mark.parametrize("command", ["train", "validate"])
def test_pickled_weights_are_refused_and_never_unpickled(
    command: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_fails(capsys, [command, "good.yaml", "model.name=pickled"], ["model.name: pickled", "safetensors"])
    assert not Path("unpickled").exists()


@pytest.mark.parametrize("command", ["train", "validate"])
def test_a_model_that_is_nowhere_is_refused_offline(
    command: str, workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The Hub's client would try for most of a minute to find a network.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert_fails(capsys, [command, "good.yaml", "model.name=no_one/no_model"], ["model.name: no_one/no_model"])


@pytest.mark.parametrize("command", ["train", "validate"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU computes in fp16")
def test_fp16_without_a_gpu_is_refused(command: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fragments = ["training.precision: fp16 needs a GPU; use auto, bf16 or fp32"]
    assert_fails(capsys, [command, "good.yaml", "training.precision=fp16"], fragments)


@pytest.mark.parametrize("command", ["train", "validate"])
def test_lion_without_its_package_is_refused(
    command: str, workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lion_pytorch", None)
    fragments = ["optimizer.name: lion needs its package; try: pip install lion-pytorch"]
    assert_fails(capsys, [command, "good.yaml", "optimizer.name=lion"], fragments)


@pytest.mark.parametrize("command", ["train", "validate"])
def test_a_tracker_without_its_package_is_refused(
    command: str, workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nlp_ft.training.accelerator.find_spec", lambda name: None)
    fragments = ["trackers: tensorboard is not installed; try: pip install tensorboard"]
    assert_fails(capsys, [command, "good.yaml", "trackers=[tensorboard]"], fragments)


def test_a_loss_that_is_no_number_ends_the_run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    diverging = ["optimizer.name=sgd", "optimizer.lr=9.9", "optimizer.weight_decay=9.9", "schedule.warmup=0%"]
    epochs = ["training.duration=9ep", "training.checkpoint_every=9ep"]
    fragments = ["the loss is nan at step", "try a lower optimizer.lr"]
    assert_fails(capsys, ["train", "good.yaml", *diverging, *epochs], fragments)


@pytest.mark.parametrize("rate", ["2e-5", "2E-5", ".00002", "2.0e-05"])
def test_a_rate_may_be_written_with_an_exponent(rate: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["layers", "tiny", f"optimizer.lr={rate}", "optimizer.layer_decay=1"])
    assert exit_info.value.code == 0
    shown = capsys.readouterr().out
    assert (shown.count("  2.00e-5  "), shown.count("  2.00e-4  ")) == (3, 1)


def test_weights_that_are_whole_are_accepted(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["validate", "good.yaml"])
    assert exit_info.value.code == 0
    out, err = capsys.readouterr()
    assert (out.splitlines()[-1], err) == ("good.yaml: ready to train", "")

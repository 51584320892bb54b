"""Output folders, disks and run folders that cannot be used end in one clear message, and nothing of value is lost."""

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nlp_ft.cli import main
from tests.test_bad_inputs import failure, save_inputs, work_in

NO_SPACE = OSError(28, "No space left on device")
DAMAGES = [
    ("model.safetensors", b"no weights", "header"),
    ("model.safetensors", None, "has no model.safetensors"),
    ("config.json", b"{ model", "not a valid JSON"),
    ("config.json", None, "has no config.json"),
    ("tokenizer.json", b"{ tokens", "tokenizer"),
    ("tokenizer.json", None, "tokenizer"),
    ("recipe.yaml", b"data: [", "not valid YAML"),
    ("recipe.yaml", None, "has no recipe.yaml"),
]
BAD_REQUESTS = [
    ("predict tiny red", ["tiny is not a finished run: it has no recipe.yaml"]),
    ("predict nowhere red", ["nowhere is not a finished run"]),
    ("predict train.csv red", ["train.csv is not a finished run"]),
    ("predict finished", ["predict needs one of: texts or images on the command line, - for standard"]),
    ("predict finished red --file test.csv", ["predict needs one of: texts or images"]),
    ("predict finished --file nope.csv", ["--file: there is no nope.csv"]),
    ("predict finished --file other_columns.csv", ["--file: other_columns.csv", "'text'", "txt, label"]),
    ("predict finished --file header.csv", ["--file", "header.csv", "no rows"]),
    ("predict finished --file binary.csv", ["--file: binary.csv is a binary file"]),
    ("predict finished red --output nowhere/out.csv", ["nowhere/out.csv: No such file or directory"]),
    ("predict finished red --output tiny", ["tiny: Is a directory"]),
    ("eval tiny", ["tiny is not a finished run: it has no recipe.yaml"]),
    ("eval finished", ["no test split; name a file with --data"]),
    ("eval finished --data nope.csv", ["--data: there is no nope.csv"]),
    ("eval finished --data new_label.csv", ["--data", "new_label.csv", "colors", "did you mean colour?"]),
    ("eval finished --data empty_label.csv", ["--data", "empty_label.csv", "no label in column 'label'"]),
    ("eval finished --data other_columns.csv", ["--data", "other_columns.csv", "'text'", "txt, label"]),
    ("eval finished --data header.csv", ["--data", "header.csv", "no rows"]),
    ("layers without_weights/nothing/there", ["without_weights/nothing/there"]),
    ("layers corrupt_config", ["corrupt_config", "config.json", "not a valid JSON"]),
    ("layers without_blocks", ["has no list of blocks"]),
    ("layers tiny optimizer.rate=1", ["tiny: optimizer.rate is not a key of a recipe"]),
    ("layers tiny optimizer.layer_decay=9.0", ["optimizer.layer_decay must be in (0, 1], got 9.0; did you mean 0.9?"]),
]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs of test_bad_inputs.py, and a finished run of the good recipe."""
    folder = save_inputs(tmp_path_factory.mktemp("inputs"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pytest.raises(SystemExit, match="0"):
            main(["train", "good.yaml", "output_dir=finished"])
    return folder


@pytest.fixture
def workplace(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, for one test: the inputs by their names, and no run but the finished one."""
    return work_in(tmp_path, inputs, monkeypatch)


@pytest.fixture
def finished(workplace: Path) -> Path:
    """The finished run, as a copy that a test may damage."""
    linked = workplace / "finished"
    original = linked.resolve()
    linked.unlink()
    return shutil.copytree(original, linked)


@pytest.fixture
def unfinished(workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """`run.partial`, with the checkpoint after step 3: the disk is full at step 4."""
    written = []

    def save_three_times(tensors: dict[str, torch.Tensor], file: Path) -> None:
        written.append(file)
        if len(written) > 6:  # two files a checkpoint
            raise NO_SPACE
        save_file(tensors, file)

    with monkeypatch.context() as patch:
        patch.setattr("nlp_ft.training.checkpoint.save_file", save_three_times)
        line = failure(capsys, "train", "good.yaml", "training.checkpoint_every=1st")
    assert line.startswith("error: output_dir: cannot write in run: No space left on device")
    assert "--resume" in line
    return workplace / "run.partial"


def resume(capsys: pytest.CaptureFixture[str], *changes: str) -> str:
    return failure(capsys, "train", "good.yaml", "training.checkpoint_every=1st", *changes, "--resume")


@pytest.mark.parametrize("command", ["train", "train --overwrite", "validate"])
@pytest.mark.parametrize(
    ("place", "fragment"),
    [
        ("train.csv/run", "Not a directory"),
        ("/dev/null/run", "nothing can be written in /dev/null: Not a directory"),
        ("train.csv", "train.csv"),
        ("tiny", "tiny"),
        (".", "output_dir"),
        ("..", "output_dir"),
        ("/", "output_dir"),
    ],
)
@pytest.mark.usefixtures("workplace")
def test_an_output_dir_that_cannot_be_a_run_is_refused_and_what_is_there_stays(
    command: str,
    place: str,
    fragment: str,
    inputs: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = contents(inputs)
    name, *flags = command.split()
    line = failure(capsys, name, "good.yaml", f"output_dir={place}", *flags)
    assert "output_dir: " in line
    assert fragment in line
    assert contents(inputs) == before
    assert list(Path().glob("*.partial")) == []


def test_a_finished_run_is_not_replaced_unless_asked(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(finished)
    line = failure(capsys, "train", "good.yaml", "output_dir=finished")
    told = "output_dir: finished holds a finished run; choose another, or pass --overwrite to replace it"
    assert line == f"error: {told}"
    assert contents(finished) == before


def test_a_folder_of_other_files_is_not_replaced_even_if_asked(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished / "summary.json").unlink()
    before = contents(finished)
    line = failure(capsys, "train", "good.yaml", "output_dir=finished", "--overwrite")
    assert line == "error: output_dir: finished holds other things than a run and is not overwritten"
    assert contents(finished) == before


def test_an_unfinished_run_is_kept_with_its_last_whole_checkpoint(
    unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [folder.name for folder in unfinished.glob("checkpoints/step-*")] == ["step-00000003"]
    before = contents(unfinished)
    line = failure(capsys, "train", "good.yaml")
    assert "output_dir: run.partial holds an unfinished run; pass --resume to go on with it, or --overwrite" in line
    line = failure(capsys, "predict", "run", "red")
    assert "run is not a finished run" in line
    assert "--resume" in line
    assert contents(unfinished) == before


def test_resuming_with_another_recipe_is_refused_with_the_difference(
    unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(unfinished)
    line = resume(capsys, "optimizer.lr=3e-3")
    assert "--resume: run.partial was begun with another recipe; different: optimizer.lr: 0.001 then, 0.003 now" in line
    assert contents(unfinished) == before


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("content", [b"", b"damaged", None], ids=["empty", "damaged", "missing"])
def test_a_damaged_checkpoint_is_refused_by_its_name(
    file: str, content: bytes | None, unfinished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = unfinished / "checkpoints/step-00000003" / file
    if content is None:
        damaged.unlink()
    else:
        damaged.write_bytes(content)
    assert f"checkpoints/step-00000003/{file}" in resume(capsys)


def test_a_resumed_run_ends_as_one_that_met_no_full_disk(unfinished: Path, finished: Path) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["train", "good.yaml", "training.checkpoint_every=1st", "--resume"])
    assert exit_info.value.code == 0
    assert Path("run/model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
    assert not unfinished.exists()


@pytest.mark.usefixtures("workplace")
def test_a_disk_without_room_for_the_run_is_refused_before_training(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    little = shutil.disk_usage(".")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: little)
    line = failure(capsys, "train", "good.yaml")
    assert "output_dir: run needs " in line
    assert line.endswith(" MiB for model and checkpoints, but 0 MiB are free on that disk")
    assert list(Path().glob("run*")) == []


@pytest.mark.usefixtures("workplace")
def test_a_file_that_the_system_refuses_to_write_ends_the_run_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # the weights take 50,000 bytes
    try:
        line = failure(capsys, "train", "good.yaml")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert line.startswith("error: output_dir: cannot write in run: ")
    assert "File too large" in line
    assert list(Path().glob("run*")) == []


@pytest.mark.parametrize(("command", "fragments"), BAD_REQUESTS, ids=[request for request, _ in BAD_REQUESTS])
@pytest.mark.usefixtures("finished")
def test_a_request_that_cannot_be_met_is_refused_in_one_line(
    command: str, fragments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = failure(capsys, *command.split())
    assert [fragment for fragment in fragments if fragment not in line] == [], line


@pytest.mark.parametrize("command", ["predict finished red", "eval finished"])
@pytest.mark.parametrize(("file", "content", "fragment"), DAMAGES)
def test_a_damaged_run_folder_is_refused_by_its_name(
    file: str,
    content: bytes | None,
    fragment: str,
    command: str,
    finished: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (finished / file).unlink()
    if content is not None:
        (finished / file).write_bytes(content)
    line = failure(capsys, *command.split())
    assert line.startswith("error: finished")
    assert fragment in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train missing.yaml", "missing.yaml: there is no such file"),
        ("validate twice.yaml", "twice.yaml: line 2, column 1: not valid YAML: seed is given twice"),
        ("train good.yaml optimizer.lr=-1", "good.yaml: optimizer.lr must be in (0, 10), got -1"),
        (
            "train good.yaml data.train=ragged.csv",
            "data.train: ragged.csv cannot be read as csv: Expected 2 fields in line 3, saw 4; write a value with a "
            'quotation mark, a separator or a line break in "...", and double its own marks',
        ),
    ],
)
@pytest.mark.usefixtures("workplace")
def test_the_command_itself_shows_the_message_and_no_traceback(arguments: str, message: str) -> None:
    done = subprocess.run([sys.executable, "-m", "nlp_ft", *arguments.split()], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")
    assert list(Path().glob("run*")) == []

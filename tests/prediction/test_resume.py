"""A prediction that was stopped goes on: the file has the bytes of an unbroken one, and nothing foreign gets in."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest

from nlp_ft.cli import main
from nlp_ft.errors import DataError, FolderInUseError, Interrupted, RunFolderError
from nlp_ft.prediction.parts import Parts
from nlp_ft.prediction.predict import Source, predict_to_file
from nlp_ft.prediction.text_run import TextRun
from nlp_ft.training import lock
from tests.prediction.test_predict import FORMATS, small_chunks, texts, write_texts

pytestmark = pytest.mark.usefixtures("small_chunks")
__all__ = ["small_chunks"]
ROWS = 101
"""Three chunks of 40 rows, the last of them shorter."""


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(write_texts(tmp_path / "in.jsonl", texts(ROWS)))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of texts of each chunk that the model computes."""
    seen: list[int] = []
    compute = TextRun.activated

    def noting(self: TextRun, inputs: Any, *arguments: Any) -> np.ndarray:
        seen.append(len(inputs))
        return compute(self, inputs, *arguments)

    monkeypatch.setattr(TextRun, "activated", noting)
    return seen


def ending(number: int, end: Callable[[], object]) -> Callable[..., pyarrow.Table]:
    """`Parts.keep` that calls `end` once a number of chunks is kept."""
    keep = Parts.keep

    def kept(self: Parts, chunk: int, columns: pyarrow.Table) -> pyarrow.Table:
        found = keep(self, chunk, columns)
        if self.count() == number:
            end()
        return found

    return kept


def killed(number: int, run: TextRun, source: Source, output: Path, **options: Any) -> None:
    """Predict in a process that is killed once a number of chunks is kept."""
    process = os.fork()
    if not process:
        Parts.keep = ending(number, lambda: os.kill(os.getpid(), signal.SIGKILL))  # type: ignore[method-assign]
        try:
            predict_to_file(run, source, str(output), **options)
        finally:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_killed_prediction_goes_on_to_the_bytes_of_an_unbroken_one(
    suffix: str, run: TextRun, source: Source, tmp_path: Path, computed: list[int]
) -> None:
    whole, output = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    assert predict_to_file(run, source, str(whole), probabilities=True) == ROWS
    assert computed == [40, 40, 21]
    killed(1, run, source, output, probabilities=True)
    assert (output.exists(), names(Path(f"{output}.partial"))) == (
        False, ["chunk-000000.arrow", f"out.{suffix}", "prediction.json"]
    )  # fmt: skip
    killed(2, run, source, output, probabilities=True, resume=True)
    computed.clear()
    assert predict_to_file(run, source, str(output), probabilities=True, resume=True) == ROWS
    assert computed == [21]
    assert output.read_bytes() == whole.read_bytes()
    assert names(tmp_path) == ["in.jsonl", f"out.{suffix}", f"whole.{suffix}"]


def test_a_chunk_that_is_cut_changed_or_foreign_is_predicted_again(
    run: TextRun, source: Source, tmp_path: Path, computed: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    whole, output, other = tmp_path / "whole.csv", tmp_path / "out.csv", tmp_path / "other.csv"
    predict_to_file(run, source, str(whole))
    killed(3, run, source, output)
    killed(3, run, Source(words=texts(ROWS)[::-1]), other)
    folder = Path(f"{output}.partial")
    first, second = folder / "chunk-000000.arrow", folder / "chunk-000001.arrow"
    first.write_bytes(first.read_bytes()[:-8])
    changed = bytearray(second.read_bytes())
    changed[-40] ^= 1
    second.write_bytes(changed)
    shutil.copy(tmp_path / "other.csv.partial" / "chunk-000002.arrow", folder)
    computed.clear()
    predict_to_file(run, source, str(output), resume=True)
    assert (computed, output.read_bytes()) == ([40, 40, 21], whole.read_bytes())
    assert capsys.readouterr().err.count("is damaged or of another chunk") == 3


def test_chunks_under_each_others_names_are_predicted_again(
    run: TextRun, source: Source, tmp_path: Path, computed: list[int]
) -> None:
    whole, output = tmp_path / "whole.csv", tmp_path / "out.csv"
    predict_to_file(run, source, str(whole))
    killed(2, run, source, output)
    first, second = (Path(f"{output}.partial", f"chunk-00000{number}.arrow") for number in (0, 1))
    first.rename(second.with_name("moved"))
    second.rename(first)
    second.with_name("moved").rename(second)
    computed.clear()
    predict_to_file(run, source, str(output), resume=True)
    assert (computed, output.read_bytes()) == ([40, 40, 21], whole.read_bytes())


def test_another_input_run_or_setting_is_refused_by_name_and_nothing_is_lost(
    run: TextRun, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.csv"
    killed(2, run, source, output)
    before = names(Path(f"{output}.partial"))
    copied = shutil.copytree(run.folder, tmp_path / "copy")
    recipe = copied / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "# changed\n")
    monkeypatch.setattr(run, "folder", copied)
    with pytest.raises(RunFolderError) as caught:
        predict_to_file(run, Source(words=["red"]), str(output), probabilities=True, resume=True)
    assert str(caught.value) == (
        f"--resume: {output}.partial was begun with other data or on other terms; different: input, run, "
        "--probabilities (False then, True now); put them back as they were, or pass --overwrite to begin anew"
    )
    assert names(Path(f"{output}.partial")) == before


def test_the_same_input_and_run_under_other_names_are_the_same(
    run: TextRun, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, computed: list[int]
) -> None:
    killed(2, run, source, tmp_path / "out.csv")
    monkeypatch.setattr(run, "folder", shutil.copytree(run.folder, tmp_path / "copy"))
    (tmp_path / "copy" / "report.html").write_text("written since")
    assert source.file
    moved = Path(source.file).rename(tmp_path / "moved.jsonl")
    predict_to_file(run, Source(str(moved)), str(tmp_path / "out.csv"), resume=True)
    assert computed == [21]


def test_another_environment_is_named_and_goes_on(
    run: TextRun, source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed(1, run, source, tmp_path / "out.csv")
    mark = tmp_path / "out.csv.partial" / "prediction.json"
    found = json.loads(mark.read_text())
    mark.write_text(json.dumps({**found, "environment": {**found["environment"], "threads": "64"}}))
    predict_to_file(run, source, str(tmp_path / "out.csv"), resume=True)
    said = " ".join(capsys.readouterr().out.split())
    assert "was begun in another environment (threads: 64 then, 1 now)" in said


@pytest.mark.parametrize("content", [None, "", "{"])
def test_a_mark_that_is_missing_or_damaged_is_not_believed(
    content: str | None, run: TextRun, source: Source, tmp_path: Path
) -> None:
    killed(1, run, source, tmp_path / "out.csv")
    mark = tmp_path / "out.csv.partial" / "prediction.json"
    mark.unlink() if content is None else mark.write_text(content)
    expected = "is not an unfinished prediction" if content is None else "is damaged; pass --overwrite"
    with pytest.raises(RunFolderError, match=expected):
        predict_to_file(run, source, str(tmp_path / "out.csv"), resume=True)
    assert (tmp_path / "out.csv.partial" / "chunk-000000.arrow").exists()


def test_ctrl_c_keeps_finished_chunks_and_says_how_to_go_on(
    run: TextRun, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, computed: list[int]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    output = str(tmp_path / "out.parquet")
    with monkeypatch.context() as patched:
        patched.setattr(Parts, "keep", ending(2, interrupt))
        with pytest.raises(Interrupted) as caught:
            predict_to_file(run, source, output)
    advice = f"finished chunks are kept in {output}.partial; pass --resume to go on from there"
    assert (str(caught.value), caught.value.exit_code) == (f"interrupted; {advice}", 130)
    assert predict_to_file(run, source, output, resume=True) == ROWS
    assert computed == [40, 40, 21]


def test_a_full_disk_keeps_finished_chunks(
    run: TextRun, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def full(self: Path, mode: str = "r", *options: Any, **named: Any) -> Any:
        # What is written there is refused with "No space left on device".
        is_second = self.suffix == ".writing" and mode == "xb" and any(self.parent.glob("chunk-*"))
        return opened(Path("/dev/full"), "wb") if is_second else opened(self, mode, *options, **named)

    monkeypatch.setattr(Path, "open", full)
    output = tmp_path / "out.csv"
    with pytest.raises(DataError) as caught:
        predict_to_file(run, source, str(output))
    assert str(caught.value) == (
        f"--output: {output}: No space left on device; it holds what it held before; finished chunks are kept in "
        f"{output}.partial; pass --resume to go on from there"
    )
    assert "chunk-000000.arrow" in names(Path(f"{output}.partial"))


def test_one_process_writes_an_output(run: TextRun, source: Source, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    with lock.held(output), pytest.raises(FolderInUseError, match=r"^--output: .*out.csv is being written by another"):
        predict_to_file(run, source, str(output))
    assert names(tmp_path) == ["in.jsonl"]


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        ("out.csv.partial/chunk-000000.arrow", "", "--output: out.csv.partial holds an unfinished prediction; pass"),
        ("out.csv.partial/mine.txt", "", "--output: out.csv.partial is not an unfinished prediction (it holds no"),
        ("out.csv.partial/mine.txt", "--resume", "--output: out.csv.partial is not an unfinished prediction (it"),
        ("out.csv.partial/mine.txt", "--overwrite", "--output: out.csv.partial is not an unfinished prediction (it"),
        ("out.csv", "--resume", "--output: out.csv exists; choose another, or pass --overwrite to replace it"),
    ],
)
def test_what_is_in_the_way_is_said_before_the_model_is_loaded(
    made: str,
    options: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(made).parent.mkdir(exist_ok=True)
    Path(made).write_text("{}")
    if "chunk" in made:
        Path(made).with_name("prediction.json").write_text("{}")
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "no_run", "red", "--output", "out.csv", *options.split()])
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert Path(made).read_text() == "{}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["red", "--resume"], "--resume needs --output\n"),
        (
            ["-", "--output", "o.csv", "--resume"],
            "lines of standard input cannot be read a second time; name a file with",
        ),
    ],
)
def test_what_cannot_be_resumed_is_said(
    arguments: list[str],
    message: str,
    run: TextRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(run.folder), *arguments])
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert names(tmp_path) == []


def test_an_unfinished_file_that_replaces_another_goes_on_and_replaces_it(
    run: TextRun, source: Source, tmp_path: Path, computed: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.csv"
    output.write_text("from before")
    killed(2, run, source, output)
    assert source.file
    command = ["predict", str(run.folder), "--file", source.file, "--output", str(output), "--resume"]
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert "or pass --resume --overwrite to replace it" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--overwrite"])
    assert (computed, names(tmp_path)) == ([21], ["in.jsonl", "out.csv"])
    assert "going on with the finished chunks in" in capsys.readouterr().err


SMALL_CHUNKS = """
import sys
from nlp_ft.data import streaming
streaming.CHUNK_ROWS = 40
from nlp_ft.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_the_command_is_killed_and_goes_on(run: TextRun, tmp_path: Path) -> None:
    file = write_texts(tmp_path / "in.jsonl", texts(4000))
    command = [sys.executable, "-c", SMALL_CHUNKS, "predict", str(run.folder), "--file", file, "--output"]
    subprocess.run([*command, str(tmp_path / "whole.csv")], check=True)
    output = tmp_path / "out.csv"
    process = subprocess.Popen([*command, str(output)])
    while len(list(tmp_path.glob("out.csv.partial/chunk-*"))) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not output.exists()
    subprocess.run([*command, str(output), "--resume"], check=True)
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()

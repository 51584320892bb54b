"""Predictions of many inputs: as one by one, in their order, in whole files only, and in bounded memory."""

import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from datasets import Dataset
from transformers import pipeline

from nlp_ft.cli import main
from nlp_ft.data import streaming
from nlp_ft.errors import DataError
from nlp_ft.prediction import tokens, trained_run
from nlp_ft.prediction.files import prediction_file
from nlp_ft.prediction.predict import Source, evaluate_run, predict, predict_to_file
from nlp_ft.prediction.text_run import TextRun
from tests.tiny import WORDS, write_tiny_csv

FORMATS = ["csv", "jsonl", "parquet"]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks of several batches, for few texts."""
    for module in (trained_run, streaming):
        monkeypatch.setattr(module, "CHUNK_ROWS", 40)
    monkeypatch.setitem(tokens.TOKENS_PER_BATCH, "cpu", 100)


def texts(count: int) -> list[str]:
    """Of 0 to 40 words: some are empty, and some are cut."""
    generator = random.Random(0)
    return [" ".join(generator.choices(WORDS, k=generator.randrange(41))) for _ in range(count)]


def write_texts(file: Path, rows: Sequence[str]) -> str:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    return str(file)


def table(texts: list[str], labels: list[str], scores: list[float]) -> tuple[pyarrow.Table, pyarrow.Table]:
    """Rows as they were read, and the columns of their predictions."""
    return pyarrow.table({"text": texts}), pyarrow.table({"label": labels, "score": scores})


def read(file: Path) -> list[dict[str, Any]]:
    if file.suffix == ".parquet":
        return list(pyarrow.parquet.read_table(file).to_pylist())
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream)) if file.suffix == ".csv" else [json.loads(line) for line in stream]


@pytest.mark.usefixtures("small_chunks")
def test_predictions_of_many_texts_are_those_of_each_one_alone(run: TextRun) -> None:
    several = texts(101)
    together = run.predict(several)
    alone = [run.predict([text])[0] for text in several]
    assert len({p.label for p in alone}) == 3
    assert [p.label for p in together] == [p.label for p in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-6)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_of_predictions_has_the_texts_in_their_order_with_the_pipelines_labels(
    suffix: str, run: TextRun, tmp_path: Path
) -> None:
    several = texts(101)
    output = tmp_path / f"out.{suffix}"
    assert predict_to_file(run, Source(write_texts(tmp_path / "in.jsonl", several)), str(output)) == 101
    classify = pipeline("text-classification", model=run.model, tokenizer=run.tokenizer, device="cpu")
    expected = classify(several, truncation=True, max_length=24)
    written = read(output)
    assert [row["text"] for row in written] == several
    assert [row["predicted_label"] for row in written] == [row["label"] for row in expected]
    assert [float(row["predicted_score"]) for row in written] == pytest.approx(
        [row["score"] for row in expected], abs=1e-6
    )
    assert sorted(tmp_path.iterdir()) == [tmp_path / "in.jsonl", output]


@pytest.mark.usefixtures("small_chunks")
def test_no_more_than_one_chunk_of_a_file_is_read_ahead_of_its_predictions(
    run: TextRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    read_chunks, compute = TextRun.read, TextRun.activated

    def noting_read(self: TextRun, *arguments: Any) -> Iterator[Any]:
        for chunk in read_chunks(self, *arguments):
            events.append(f"read {len(chunk[0])}")
            yield chunk

    def noting_compute(self: TextRun, inputs: Any, *arguments: Any) -> np.ndarray:
        events.append(f"computed {len(inputs)}")
        return compute(self, inputs, *arguments)

    monkeypatch.setattr(TextRun, "read", noting_read)
    monkeypatch.setattr(TextRun, "activated", noting_compute)
    predict_to_file(run, Source(write_texts(tmp_path / "in.jsonl", texts(101))), str(tmp_path / "out.csv"))
    assert events == ["read 40", "computed 40", "read 40", "computed 40", "read 21", "computed 21"]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("suffix", FORMATS)
def test_an_error_on_the_way_leaves_what_was_there_and_nothing_else(suffix: str, run: TextRun, tmp_path: Path) -> None:
    file = Path(write_texts(tmp_path / "in.jsonl", texts(90)))
    file.write_text(file.read_text() + "no json\n")
    output = tmp_path / f"out.{suffix}"
    output.write_text("from before")
    with pytest.raises(DataError, match=r"^--file: .*in\.jsonl cannot be read as json"):
        predict_to_file(run, Source(str(file)), str(output))
    assert (output.read_text(), sorted(tmp_path.iterdir())) == ("from before", [file, output])


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_has_its_name_only_when_it_is_whole(suffix: str, tmp_path: Path) -> None:
    output = tmp_path / f"out.{suffix}"
    with prediction_file(str(output)) as write:
        write(*table(["a, b", "ü\n"], ["x", "y"], [0.5, 0.25]))
        [partial] = tmp_path.iterdir()
        assert (partial.name[:8], partial.suffix) == (f".out.{suffix}"[:8], ".partial")
        write(*table(["c"], ["x"], [1.0]))
    rows = [{**row, "score": float(row["score"])} for row in read(output)]
    assert rows == [
        {"text": "a, b", "label": "x", "score": 0.5},
        {"text": "ü\n", "label": "y", "score": 0.25},
        {"text": "c", "label": "x", "score": 1.0},
    ]
    assert sorted(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("old.csv", "error: --output: old.csv exists; choose another, or pass --overwrite to replace it\n"),
        ("new.txt", "error: --output: the file's name must end in .csv, .jsonl, .parquet, got new.txt\n"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_model_is_loaded(
    output: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.csv").write_text("from before")
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "no_run", "red", "--output", output])
    assert (capsys.readouterr().err, Path("old.csv").read_text()) == (message, "from before")


def test_an_output_is_replaced_where_that_is_asked(run: TextRun, tmp_path: Path) -> None:
    output = tmp_path / "old.csv"
    output.write_text("from before")
    with pytest.raises(SystemExit, match="0"):
        main(["predict", str(run.model.name_or_path), "red", "--output", str(output), "--overwrite"])
    assert [row["text"] for row in read(output)] == ["red"]


def test_nothing_in_is_nothing_out(run: TextRun) -> None:
    assert predict(str(run.model.name_or_path), []) == []


@pytest.mark.parametrize(
    ("precision", "native", "dtype"),
    [
        ("auto", True, "bf16"),
        ("auto", False, "fp32"),
        ("fp32", True, "fp32"),
        ("fp16", True, "fp32"),
        ("bf16", False, "bf16"),
    ],
)
def test_predict_and_eval_compute_in_the_precision_that_training_would_have_here(
    precision: str, native: bool, dtype: str, run: TextRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    labelled = write_tiny_csv(tmp_path / "labelled.csv", 6)
    head = next(module for module in reversed(list(run.model.modules())) if isinstance(module, torch.nn.Linear))
    hook = head.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    monkeypatch.setattr("nlp_ft.training.precision.has_native_bf16", lambda device: native)
    training = run.recipe.training.model_copy(update={"precision": precision})
    monkeypatch.setattr(run, "recipe", run.recipe.model_copy(update={"training": training}))
    run.predict(["red"])
    monkeypatch.setattr("nlp_ft.prediction.predict.load_run", lambda folder, trust_remote_code: run)
    evaluate_run("the run", str(labelled))
    hook.remove()
    assert seen == {{"bf16": torch.bfloat16, "fp32": torch.float32}[dtype]}


PEAK = """
import sys
from nlp_ft.cli import main
try:
    main(sys.argv[1:])
finally:
    # Not getrusage, whose peak is at least that of the process that started this one.
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
def test_six_times_the_texts_take_no_more_memory(suffix: str, run: TextRun, tmp_path: Path) -> None:
    peaks = []
    for count in (20_000, 120_000):
        file = str(tmp_path / f"{count}.{suffix}")
        rows = Dataset.from_dict({"text": texts(1000) * (count // 1000)})
        {"csv": rows.to_csv, "jsonl": rows.to_json, "parquet": rows.to_parquet}[suffix](file)
        arguments = [
            "predict",
            str(run.model.name_or_path),
            "--file",
            file,
            "--output",
            str(tmp_path / f"out-{count}.{suffix}"),
        ]
        done = subprocess.run([sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] / peaks[0] < 1.05


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_of_the_users_that_is_called_partial_stays(suffix: str, tmp_path: Path) -> None:
    own = tmp_path / f"out.{suffix}.partial"
    own.write_text("of the user")
    with prediction_file(str(tmp_path / f"out.{suffix}")) as write:
        write(*table(["a"], ["x"], [0.5]))
    assert own.read_text() == "of the user"


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_is_one_error_that_names_the_file_and_leaves_nothing(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open
    # What is written there is refused with "No space left on device".
    monkeypatch.setattr(Path, "open", lambda self, mode="r", **options: opened(Path("/dev/full"), "wb"))
    output = str(tmp_path / f"out.{suffix}")
    with (
        pytest.raises(DataError, match=rf"^--output: .*out.{suffix}: No space left on device; it holds what it held"),
        prediction_file(output) as write,
    ):
        write(*table(["a"] * 1000, ["x"] * 1000, [0.5] * 1000))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (7, "predict takes one text or a list of them, got int"),
        (["red", None], "input 1 (from 0) must be a text, got None"),
        (["red", 7], "input 1 (from 0) must be a text, got 7"),
        (["red", ("red", "blue")], "this model takes single texts"),
        (["red", "bro\udcffken"], "input 1 (from 0) cannot be encoded as UTF-8"),
    ],
)
def test_what_is_no_text_is_refused_by_its_number(inputs: Any, message: str, run: TextRun) -> None:
    with pytest.raises(DataError) as caught:
        run.predict(inputs)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("pair", "shown"), [(("red",), "('red',)"), (("red", None), "('red', None)"), (["a", "b", "c"], "['a', 'b', 'c']")]
)
def test_an_incomplete_pair_is_refused_and_takes_nothing_from_the_others(
    pair: Any, shown: str, run: TextRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = run.recipe.data.model_copy(update={"text": ["text", "more"]})
    monkeypatch.setattr(run, "recipe", run.recipe.model_copy(update={"data": data}))
    with pytest.raises(DataError, match=r"^input 1 \(from 0\) must be a pair of texts, got ") as caught:
        run.predict([("red", "blue"), pair])
    assert str(caught.value).endswith(shown)


def test_a_text_with_escape_codes_and_line_breaks_forges_no_line(
    run: TextRun, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["predict", str(run.model.name_or_path), "red\n  0.9999  forged\x1b[1A", "--top-k", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert (len(lines), lines[0]) == (3, "red\\n  0.9999  forged\\x1b[1A")


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_less_than_one_label_is_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "no_run", "red", f"--top-k={count}"])
    assert "--top-k" in capsys.readouterr().err


def test_a_pipe_is_refused_and_not_waited_for(run: TextRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(run.model.name_or_path), "--file", str(tmp_path / "pipe.csv")])
    assert "is a pipe or a device; save its content as a file" in capsys.readouterr().err


def test_a_number_among_the_texts_of_a_file_changes_none_of_them(run: TextRun, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"text": "red"}\n{"text": 7}\n')
    with pytest.raises(DataError, match="line 2: 'text' is a whole number, and a text in the rows before it"):
        predict_to_file(run, Source(str(file)), str(tmp_path / "out.csv"))
    assert list(tmp_path.iterdir()) == [file]

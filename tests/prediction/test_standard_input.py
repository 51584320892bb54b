"""Inputs from standard input: one a line, predicted as they arrive."""

import io
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nlp_ft.cli import main
from nlp_ft.data.streaming import stream_lines
from nlp_ft.errors import DataError
from nlp_ft.prediction.text_run import TextRun
from tests.prediction.test_predict import read

NUMBERS = "(numbers: the probability of each label)"

SECONDS_TO_ANSWER = 120
"""Torch is imported meanwhile, on a busy machine."""
ARRIVED = "cat cat cat\n", "red red red\n"


@pytest.fixture
def stdin(tmp_path: Path) -> Iterator[Path]:
    """A file that is standard input; it can be written before it is read."""
    file = tmp_path / "stdin"
    file.touch()
    own = os.dup(0)
    descriptor = os.open(file, os.O_RDONLY)
    os.dup2(descriptor, 0)
    yield file
    os.dup2(own, 0)
    os.close(own)
    os.close(descriptor)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    """Exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    shown = capsys.readouterr()
    return end.value.code, shown.out, shown.err


def test_lines_are_given_as_they_arrive_and_the_last_needs_no_line_break() -> None:
    blocks = [b"\xef\xbb\xbfone\r\ntw", b"o\n\n", "thr\u00fc".encode()[:-1], b"\xbc"]

    class Arriving(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            return blocks.pop(0) if blocks else b""

    assert list(stream_lines(Arriving(), "f")) == [["one"], ["two", ""], ["thrü"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "standard input holds no line; give one input a line"),
        (b"one\n\xff\n", "standard input: line 2 is not UTF-8"),
        (b"one\nt\xff", "standard input: line 2 is not UTF-8"),
    ],
)
def test_what_is_no_text_is_named_by_its_line(content: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        list(stream_lines(io.BytesIO(content), "standard input"))
    assert str(caught.value) == message


def test_a_line_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlp_ft.data.streaming.LONGEST_TEXT", 10)
    with pytest.raises(DataError, match=r"^f: line 2 has more than 10 bytes$"):
        list(stream_lines(io.BytesIO(b"one\n" + b"x" * 11), "f"))


@pytest.mark.slow
def test_each_prediction_is_printed_before_the_next_line_arrives(run: TextRun) -> None:
    command = [sys.executable, "-m", "nlp_ft", "predict", str(run.model.name_or_path), "--top-k", "1", "-"]
    # With this variable, Python would write every line at once.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin
        assert process.stdout
        for line, label in zip(ARRIVED, ("animal", "colour"), strict=True):
            process.stdin.write(line)
            process.stdin.flush()
            assert select.select([process.stdout], [], [], SECONDS_TO_ANSWER)[0], "the prediction waits for more lines"
            assert process.stdout.readline() == line
            assert process.stdout.readline().split()[1] == label
        process.stdin.close()
        assert (process.stdout.read(), process.wait()) == (f"{NUMBERS}\n", 0)


def test_lines_are_written_to_a_file_of_predictions(
    run: TextRun, stdin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin.write_text("".join(ARRIVED))
    output = stdin.with_name("out.jsonl")
    code, out, err = said(capsys, "predict", str(run.model.name_or_path), "-", "--output", str(output))
    assert (code, out, err) == (0, f"2 predictions in {output}\n", "")
    assert [(row["text"], row["predicted_label"]) for row in read(output)] == [
        ("cat cat cat", "animal"),
        ("red red red", "colour"),
    ]


def test_a_tab_is_between_the_texts_of_a_pair(
    pair_run: TextRun, stdin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(pair_run.model.name_or_path)
    [expected] = pair_run.predict([("cat", "the cat")])
    stdin.write_text("cat\tthe cat\n")
    code, out, err = said(capsys, "predict", folder, "-", "--top-k", "1")
    assert (code, out, err) == (0, f"cat | the cat\n  {expected.score:.4f}  {expected.label}\n{NUMBERS}\n", "")
    with stdin.open("a") as stream:
        stream.write("cat\tthe\tcat\n")
    os.lseek(0, 0, os.SEEK_SET)
    assert said(capsys, "predict", folder, "-")[::2] == (
        2,
        "error: standard input: line 2 must be two texts with a tab between them, as this model takes pairs; got 3\n",
    )


def test_a_file_can_come_from_standard_input_with_its_format(
    run: TextRun, stdin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin.write_text("id,text\n007,cat cat cat\n")
    output = stdin.with_name("out.csv")
    folder = str(run.model.name_or_path)
    code, _, err = said(capsys, "predict", folder, "--file", "-", "--format", "csv", "--output", str(output))
    assert (code, err) == (0, "")
    assert output.read_text().startswith("id,text,predicted_label,predicted_score\n007,cat cat cat,animal,0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("-", "standard input holds no line; give one input a line"),
        ("- red", "- stands for standard input, and must be the only input"),
        ("- --file in.csv", "predict needs one of: texts or images on the command line, - for standard input, --file"),
        ("", "predict needs one of: texts or images on the command line, - for standard input, --file"),
        ("--file -", "--file - and --format belong together; the formats are csv, tsv, jsonl, parquet"),
        ("red --format csv", "--file - and --format belong together; the formats are csv, tsv, jsonl, parquet"),
        (
            "red --probabilities",
            "--probabilities needs --output; on the screen, --top-k shows the probabilities",
        ),
    ],
)
@pytest.mark.usefixtures("stdin")
def test_what_makes_no_sense_is_said(
    arguments: str, message: str, run: TextRun, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, "predict", str(run.model.name_or_path), *arguments.split())
    assert (code, out, err) == (2, "", f"error: {message}\n")

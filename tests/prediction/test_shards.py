"""Shards of a prediction, joined, have the bytes of the whole; so has what the processes of a launch write."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nlp_ft.cli import main
from nlp_ft.data import streaming
from nlp_ft.errors import DataError, FolderInUseError, RunFolderError
from nlp_ft.prediction import trained_run
from nlp_ft.prediction.predict import Source, load_run, predict_to_file
from nlp_ft.prediction.shards import predict_shard
from nlp_ft.prediction.text_run import TextRun
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.training import lock
from nlp_ft.training.run import train
from tests.prediction.test_predict import FORMATS, small_chunks, texts, write_texts
from tests.prediction.test_resume import ROWS, SMALL_CHUNKS, computed, killed, names, source
from tests.report.test_tasks import recipe_of
from tests.tiny import tiny_recipe
from tests.tiny_choices import choice_recipe

__all__ = ["computed", "small_chunks", "source"]


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("suffix", FORMATS)
def test_shards_in_any_order_are_joined_to_the_bytes_of_the_whole(
    suffix: str, run: TextRun, source: Source, tmp_path: Path, computed: list[int]
) -> None:
    whole, output = tmp_path / f"whole.{suffix}", str(tmp_path / f"out.{suffix}")
    predict_to_file(run, source, str(whole))
    computed.clear()
    assert predict_shard(run, source, output, (2, 2)) == 40
    assert predict_shard(run, source, output, (1, 2)) == 61
    assert computed == [40, 40, 21]
    assert predict_to_file(run, source, output, resume=True) == ROWS
    assert computed == [40, 40, 21]
    assert Path(output).read_bytes() == whole.read_bytes()
    assert names(tmp_path) == ["in.jsonl", f"out.{suffix}", f"whole.{suffix}"]


@pytest.mark.usefixtures("small_chunks")
def test_the_commands_of_the_docs_join_more_shards_than_there_are_chunks(
    run: TextRun, source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    predict_to_file(run, source, "whole.csv")
    command = ["predict", str(run.folder), "--file", str(source.file), "--output", "out.csv"]
    for options in (["--shard", "1/4"], ["--shard", "4/4"], ["--shard=2/4", "--quiet"], ["--shard=3/4", "--quiet"]):
        with pytest.raises(SystemExit, match="0"):
            main([*command, *options])
    advice = "once all shards are done, the same command with --resume instead of --shard\n  joins them\n"
    assert capsys.readouterr().out == (
        f"shard 1/4: 40 predictions in out.csv.partial\n{advice}"
        f"shard 4/4: 0 predictions in out.csv.partial\n{advice}"
        "shard 2/4: 40 predictions in out.csv.partial\nshard 3/4: 21 predictions in out.csv.partial\n"
    )
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--resume"])
    assert capsys.readouterr().out == "101 predictions in out.csv\n"
    assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()


@pytest.mark.usefixtures("small_chunks")
def test_a_missing_chunk_is_predicted_when_shards_are_joined_and_a_shard_goes_on(
    run: TextRun, source: Source, tmp_path: Path, computed: list[int]
) -> None:
    whole, output = tmp_path / "whole.csv", tmp_path / "out.csv"
    predict_to_file(run, source, str(whole))
    killed(1, run, source, output)
    computed.clear()
    predict_shard(run, source, str(output), (1, 2))
    assert computed == [21]
    predict_to_file(run, source, str(output), resume=True)
    assert (computed, output.read_bytes()) == ([21, 40], whole.read_bytes())


@pytest.mark.usefixtures("small_chunks")
def test_shards_and_the_command_that_joins_them_keep_out_of_each_others_way(
    run: TextRun, source: Source, tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    predict_shard(run, source, str(output), (2, 2))
    folder = Path(f"{output}.partial")
    with lock.held(folder / "shard-1-of-2"):
        for resume in (False, True):
            with pytest.raises(FolderInUseError, match=r"^--output: .*shard-1-of-2 is being written by another"):
                predict_to_file(run, source, str(output), resume=resume)
        with pytest.raises(FolderInUseError, match=r"^--output: .*shard-1-of-2 is being written by another"):
            predict_shard(run, source, str(output), (1, 2))
    with lock.held(output), pytest.raises(FolderInUseError, match=r"^--output: .*out.csv is being written by another"):
        predict_shard(run, source, str(output), (1, 2))
    assert names(folder) == ["chunk-000001.arrow", "prediction.json"]


@pytest.mark.usefixtures("small_chunks")
def test_a_shard_of_another_input_is_refused_and_removes_nothing(run: TextRun, source: Source, tmp_path: Path) -> None:
    output = str(tmp_path / "out.csv")
    predict_shard(run, source, output, (1, 2))
    before = names(Path(f"{output}.partial"))
    says = r"^--output: .* different: input; put them back as they were, or remove .*out.csv.partial to begin anew$"
    with pytest.raises(RunFolderError, match=says):
        predict_shard(run, Source(words=["red"]), output, (2, 2))
    with pytest.raises(DataError, match="predict needs one text or more, got none"):
        predict_shard(run, Source(words=[]), str(tmp_path / "none.csv"), (1, 2))
    assert names(Path(f"{output}.partial")) == before


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "1/0", "-1/2", "1/2/3"])
def test_what_is_no_shard_is_refused(shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "no_run", "red", f"--shard={shard}"])
    assert f"must be K/N, the K-th of N parts, such as 2/5, got '{shard}'" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("processes", "arguments", "message"),
    [
        (1, "red --shard 1/2", "--shard needs --output"),
        (2, "red", "2 processes need --output; start one process to see predictions"),
        (2, "red --output o.csv --shard 1/2", "the processes of a launch are its shards: leave out --shard, or start"),
        (2, "- --output o.csv", "the processes of a launch cannot share standard input; name a file with --file"),
        (2, "--file - --format csv --output o.csv", "the processes of a launch cannot share standard input; name a"),
    ],
)
def test_what_processes_cannot_share_is_said(
    processes: int,
    arguments: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    launched = {"WORLD_SIZE": str(processes), "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "no_run", *arguments.split()])
    assert capsys.readouterr().err.startswith(f"error: {message}")


TASKS = (
    "windows",
    "pairs",
    "multi_label_classification",
    "text_regression",
    "token_classification",
    "question_answering",
    "multiple_choice",
    "image_classification",
)


def trained(task: str, folder: Path, encoder: Path) -> tuple[Any, Source]:
    """A run of a task, and its rows of test as inputs."""
    short: dict[str, Any] = {"training": {"duration": "1ep"}, "baselines": False}
    if task == "multiple_choice":
        recipe: dict[str, Any] = choice_recipe(folder, encoder, **short)
    elif task == "windows":
        windows = {"max_length": 6, "truncation": "windows", "stride": 1}
        recipe = tiny_recipe(folder, encoder, data=windows, **short)
    elif task == "pairs":
        (folder / "p.csv").write_text("first,second,label\n" + "cat,the cat,same\nred,big,other\n" * 10)
        places = {"train": str(folder / "p.csv"), "validation": None, "test": None, "text": ["first", "second"]}
        recipe = tiny_recipe(folder, encoder, data=places, **short)
    else:
        recipe = recipe_of(task, folder, encoder)
    train(recipe_from_dict(recipe))
    place = recipe["data"]["test"] or recipe["data"]["train"]
    return load_run(folder / "run"), Source(words=[place]) if task == "image_classification" else Source(file=place)


@pytest.mark.parametrize("task", [pytest.param(task, marks=pytest.mark.slow) for task in TASKS])
def test_every_kind_of_input_is_resumed_and_divided(
    task: str, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (trained_run, streaming):
        monkeypatch.setattr(module, "CHUNK_ROWS", 6)
    run, rows = trained(task, tmp_path, tiny_encoder)
    for suffix in ("jsonl", "parquet"):
        whole, resumed, joined = (tmp_path / f"{name}.{suffix}" for name in ("whole", "resumed", "joined"))
        predict_to_file(run, rows, str(whole))
        killed(2, run, rows, resumed)
        predict_to_file(run, rows, str(resumed), resume=True)
        for number in (3, 1, 2):
            predict_shard(run, rows, str(joined), (number, 3))
        predict_to_file(run, rows, str(joined), resume=True)
        assert whole.read_bytes() == resumed.read_bytes() == joined.read_bytes()


@pytest.mark.slow
def test_the_processes_of_a_launch_write_one_file_with_the_bytes_of_one_process(run: TextRun, tmp_path: Path) -> None:
    file = write_texts(tmp_path / "in.jsonl", texts(ROWS))
    program = tmp_path / "program.py"
    program.write_text(SMALL_CHUNKS)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(program)]

    def launch(file: str, output: str) -> subprocess.CompletedProcess[str]:
        command = ["predict", str(run.folder), "--file", file, "--output", str(tmp_path / output)]
        return subprocess.run([*launcher, *command], capture_output=True, text=True)

    done = launch(file, "out.csv")
    assert (done.returncode, done.stdout) == (0, f"101 predictions in {tmp_path / 'out.csv'}\n")
    command = [sys.executable, str(program), "predict", str(run.folder), "--file", file, "--output"]
    subprocess.run([*command, str(tmp_path / "whole.csv")], check=True)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("txt\nred\n")
    failed = launch(str(wrong), "none.csv")
    assert (failed.returncode != 0, failed.stderr.count("has no column 'text'; it has: txt")) == (True, 1)

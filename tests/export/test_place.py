"""The folder of an export: whole or not there, and nobody else's folder is touched."""

import errno
import math
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nlp_ft.cli import main
from nlp_ft.errors import ModelError, RunFolderError
from nlp_ft.export.check import Check
from nlp_ft.export.export import require_same
from nlp_ft.export.place import require_free_place, writing_graph, written_whole
from nlp_ft.export.program import traced
from nlp_ft.prediction.exports import default_place
from nlp_ft.training import durable
from nlp_ft.training.run_folder import RunFolder


def make(folder: Path, name: str, text: str = "{}") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder


def test_an_export_appears_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    run = make(tmp_path / "run", "config.json")
    with written_whole(tmp_path / "graph", run, overwrite=False) as folder:
        (folder / "model.onnx").write_text("graph")
        assert not (tmp_path / "graph").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph", "run"]
    assert (tmp_path / "graph" / "model.onnx").read_text() == "graph"


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ModelError("no"), OSError(errno.ENOSPC, "full")], ids=repr)
def test_after_a_failure_nothing_is_left_and_an_earlier_export_is_as_it_was(
    tmp_path: Path, failure: BaseException
) -> None:
    run, earlier = make(tmp_path / "run", "config.json"), make(tmp_path / "graph", "export.json", "earlier")
    with (  # noqa: PT012
        pytest.raises((KeyboardInterrupt, ModelError, RunFolderError)),
        written_whole(earlier, run, overwrite=True) as folder,
    ):
        (folder / "model.onnx").write_text("half")
        raise failure
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph", "run"]
    assert (earlier / "export.json").read_text() == "earlier"


def test_a_full_disk_is_named_even_where_the_engine_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tmp_path / "run", "config.json")

    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "full", str(folder))

    monkeypatch.setattr(durable, "sync_tree", full)
    with (
        pytest.raises(RunFolderError, match=r"graph cannot be written: No space left on device; nothing was written"),
        written_whole(tmp_path / "graph", run, overwrite=False),
    ):
        pass
    with (
        pytest.raises(RunFolderError, match="cannot be written: std::ios_base::failure; nothing was written"),
        writing_graph(tmp_path / "graph"),
    ):
        raise RuntimeError("std::ios_base::failure")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_killed_export_is_replaced_but_the_checkpoints_of_a_run_never_are(tmp_path: Path) -> None:
    run = make(tmp_path / "run", "config.json")
    make(tmp_path / "graph.partial", "export.json")
    with written_whole(tmp_path / "graph", run, overwrite=False):
        pass
    unfinished = make(tmp_path / "other.partial", "run.json")
    with pytest.raises(RunFolderError, match=r"other\.partial exists, such as of an unfinished run, and is left as it"):
        require_free_place(tmp_path / "other", run, overwrite=True)
    assert (unfinished / "run.json").exists()


def test_a_second_export_to_the_same_folder_is_refused_while_the_first_is_written(tmp_path: Path) -> None:
    run = make(tmp_path / "run", "config.json")
    with (
        written_whole(tmp_path / "graph", run, overwrite=False),
        pytest.raises(RunFolderError, match=r"^--output: .*graph is being written by another process"),
        written_whole(tmp_path / "graph", run, overwrite=False),
    ):
        pass
    assert (tmp_path / "graph" / "export.json").exists()


def test_a_run_stays_as_it_is_and_a_link_is_not_replaced(tmp_path: Path) -> None:
    run = make(tmp_path / "run", "config.json")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place, said in (
        (run / "graph", "is inside the run, which stays as it is; name a folder beside it"),
        (tmp_path / "run" / ".." / "run" / "graph", "is inside the run"),
        (tmp_path / "link", "is a link to"),
    ):
        with pytest.raises(RunFolderError, match=said):
            require_free_place(place, run, overwrite=True)


def test_an_export_is_named_after_the_run_however_the_run_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(tmp_path / "run", "config.json")
    monkeypatch.chdir(run)
    assert default_place("runs/mine/", "onnx", int8=False) == "runs/mine-onnx"
    assert default_place("runs/mine/.", "openvino", int8=True) == "runs/mine-openvino-int8"
    assert default_place(".", "onnx", int8=False) == f"{tmp_path}/run-onnx"


def test_an_interrupted_export_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nlp_ft.export.command_line.export_run", interrupted)
    with pytest.raises(SystemExit, match="130"):
        main(["export", "run", "--to", "onnx"])
    assert capsys.readouterr().err == "\ninterrupted; nothing was written\n"


@pytest.mark.parametrize(
    ("before", "after", "said"), [(0.0, 0.1, "cost inf percent"), (0.0, math.nan, "cost inf percent")]
)
def test_an_error_that_grows_from_nothing_is_too_much(before: float, after: float, said: str) -> None:
    require_same(Check(9, 0.1, 0.0, "mse", 0.0, 0.0, (0.0, 0.0), 1.0, 1.0), int8=True, max_loss=0.5)
    with pytest.raises(ModelError, match=re.escape(said)):
        require_same(Check(9, 0.1, 0.0, "mse", before, after, (0.0, 0.0), 1.0, 1.0), int8=True, max_loss=0.5)


class Summed(torch.nn.Module):
    """Logits, (batch, 1): the sum of the ids."""

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=input_ids.sum(1, keepdim=True).float())


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (3, 1)])
def test_a_single_row_or_token_does_not_fix_the_size(shape: tuple[int, int]) -> None:
    module: Callable[..., torch.Tensor] = traced(Summed(), {"input_ids": torch.ones(shape, dtype=torch.long)}).module()
    assert module(torch.ones(4, 7, dtype=torch.long)).tolist() == [[7.0]] * 4


@pytest.mark.parametrize("command", [["report"], ["runs"], ["runs", "elsewhere"]])
def test_an_export_has_no_report_of_its_own(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = make(make(tmp_path / "graph", "export.json"), "summary.json")
    with pytest.raises(SystemExit, match="2"):
        main([command[0], str(graph), *command[1:]])
    assert f"error: {graph} is an export, and the files in it are those of its run" in capsys.readouterr().err
    assert sorted(file.name for file in graph.iterdir()) == ["export.json", "summary.json"]


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}])
def test_no_run_replaces_an_export(options: dict[str, bool], tmp_path: Path) -> None:
    graph = make(make(tmp_path / "graph", "export.json"), "summary.json")
    with pytest.raises(RunFolderError, match=r"graph holds an export, which no run replaces; choose another"):
        RunFolder(str(graph), **options)

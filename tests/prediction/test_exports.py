"""The engine of a run: the export beside it that was made from it, the fastest of them, or the run itself."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nlp_ft
from nlp_ft.cli import main
from nlp_ft.errors import DataError, RunFolderError
from nlp_ft.prediction.engines import EngineModel
from nlp_ft.prediction.exports import engine_of, folder_with, made_from
from nlp_ft.prediction.predict import load_run
from nlp_ft.prediction.text_run import TextRun

MakeExport = Callable[..., Path]

FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "recipe.yaml", "tokenizer.json")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that an export is made from; on a machine without accelerator, with both engines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    monkeypatch.setattr("nlp_ft.prediction.exports.find_spec", lambda name: name)
    Path("run").mkdir()
    for name in FILES:
        Path("run", name).write_text(name)
    return Path("run")


@pytest.fixture
def export(folder: Path) -> MakeExport:
    def make(word: str, speed: float, changed: float = 0.0, **changes: Any) -> Path:
        check = {"rows_per_second_before": 100.0, "rows_per_second_after": speed, "changed": changed}
        record = {"engine": word, "is_int8": False, "made_from": made_from(folder), "check": check, **changes}
        place = Path(f"run-{word}{'-int8' if record['is_int8'] else ''}")
        place.mkdir()
        (place / "export.json").write_text(json.dumps(record))
        return place

    return make


def test_an_engine_takes_the_export_in_float32_beside_the_run(folder: Path, export: MakeExport) -> None:
    openvino, onnx, _ = export("openvino", 50), export("onnx", 60), export("openvino", 99, is_int8=True)
    found = {engine: folder_with(folder, engine) for engine in (None, "torch", "openvino", "onnxruntime")}
    assert found == {None: folder, "torch": folder, "openvino": openvino, "onnxruntime": onnx}
    assert [engine_of(place) for place in found.values()] == ["torch", "torch", "openvino", "onnxruntime"]


def test_of_an_export_that_is_not_there_the_command_is_given(folder: Path, export: MakeExport) -> None:
    with pytest.raises(RunFolderError) as caught:
        folder_with(folder, "onnxruntime")
    assert str(caught.value) == (
        "engine onnxruntime: there is no export run-onnx of this run; make it: nlp-ft export run --to onnx"
    )
    export("openvino", 99, is_int8=True)
    with pytest.raises(RunFolderError, match=r"--to openvino, or predict with run-openvino-int8, which computes with"):
        folder_with(folder, "openvino")


@pytest.mark.parametrize("changed", FILES)
def test_an_export_of_a_run_that_has_changed_since_is_not_taken(
    changed: str, folder: Path, export: MakeExport, capsys: pytest.CaptureFixture[str]
) -> None:
    export("openvino", 200)
    (folder / changed).write_text("trained again")
    with pytest.raises(RunFolderError) as caught:
        folder_with(folder, "openvino")
    assert str(caught.value) == (
        "engine openvino: run-openvino was not made from run as it is now; make it anew: nlp-ft export run --to "
        "openvino --overwrite"
    )
    assert folder_with(folder, "auto") == folder
    assert capsys.readouterr().err == "engine: torch; run-openvino was not made from the run as it is now\n"


@pytest.mark.parametrize(
    ("exports", "taken", "said"),
    [
        ([], "run", "engine: torch; no export lies beside the run\n"),
        (
            [("openvino", 300, 0.0), ("onnx", 210, 0.0)],
            "run-openvino",
            "engine: openvino, run-openvino: 3.0 times the rows a second of torch when it was exported",
        ),
        (
            [("openvino", 300, 0.01), ("onnx", 210, 0.0)],
            "run-onnx",
            "engine: onnxruntime, run-onnx: 2.1 times the rows a second of torch when it was exported",
        ),
        (
            [("openvino", 300, 0.01), ("onnx", 90, 0.0)],
            "run",
            "engine: torch; run-openvino changed predictions; run-onnx was slower\n",
        ),
    ],
)
def test_auto_takes_the_fastest_that_changed_nothing_and_says_why(
    exports: list[tuple[str, float, float]],
    taken: str,
    said: str,
    folder: Path,
    export: MakeExport,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for word, speed, changed in exports:
        export(word, speed, changed)
    assert folder_with(folder, "auto") == Path(taken)
    shown = capsys.readouterr()
    assert (shown.out, " ".join(shown.err.split()).startswith(said.strip())) == ("", True)


def test_auto_leaves_out_what_is_not_installed_damaged_or_in_8_bits(
    folder: Path, export: MakeExport, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (export("openvino", 300) / "export.json").write_text("{")
    export("onnx", 300, is_int8=True).rename("run-onnx")
    assert folder_with(folder, "auto") == folder
    assert " ".join(capsys.readouterr().err.split()) == (
        "engine: torch; run-openvino was not made from the run as it is now; run-onnx computes with 8-bit integers"
    )
    monkeypatch.setattr("nlp_ft.prediction.exports.find_spec", lambda name: None)
    shutil.rmtree("run-onnx")
    export("onnx", 300)
    assert folder_with(folder, "auto") == folder
    assert "run-onnx\n  needs the package onnxruntime\n" in capsys.readouterr().err


def test_auto_takes_the_run_on_an_accelerator(
    folder: Path, export: MakeExport, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export("openvino", 300)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    assert folder_with(folder, "auto") == folder
    assert capsys.readouterr().err.startswith(
        "engine: torch, on the accelerator; exports are computed on the processor"
    )


def test_of_an_export_itself_the_engine_must_agree(export: MakeExport) -> None:
    place = export("onnx", 300)
    assert {folder_with(place, engine) for engine in (None, "auto", "onnxruntime")} == {place}
    for engine in ("torch", "openvino"):
        with pytest.raises(RunFolderError) as caught:
            folder_with(place, engine)
        assert str(caught.value) == (
            f"engine {engine}: run-onnx is an export for onnxruntime; leave the engine out, or name the run it was "
            "made from"
        )


def test_no_other_engine_is_known_and_a_loaded_run_has_one(run: TextRun) -> None:
    with pytest.raises(RunFolderError, match="engine must be one of auto, torch, openvino, onnxruntime, got 'onnx'"):
        load_run(run.folder, engine="onnx")
    with pytest.raises(RunFolderError, match=r"^no_run is not a finished run"):
        load_run("no_run", engine="openvino")
    with pytest.raises(DataError, match=r"this run is loaded already; pass engine to nlp_ft.load or load_run"):
        nlp_ft.predict(run, "red", engine="torch")


@pytest.mark.slow
def test_the_engine_of_an_export_computes_for_commands_and_calls(
    run: TextRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    from nlp_ft.export.export import export_run

    folder = shutil.copytree(run.folder, tmp_path / "run")
    export_run(folder, tmp_path / "run-onnx", "onnx")
    loaded = nlp_ft.load(folder, engine="onnxruntime")
    assert isinstance(loaded.trained.model, EngineModel)
    assert nlp_ft.predict(folder, "red", engine="onnxruntime") == loaded.predict("red")
    shown = []
    for options in (
        ["--engine", "torch"],
        ["--engine", "onnxruntime"],
        ["--engine", "auto"],
        ["--engine=auto", "--quiet"],
    ):
        with pytest.raises(SystemExit, match="0"):
            main(["predict", str(folder), "red", "the cat", *options])
        shown.append(capsys.readouterr())
    assert len({said.out.partition("(numbers: ")[0] for said in shown}) == 1
    assert [said.err.startswith("engine: ") for said in shown] == [False, False, True, False]
    output = str(tmp_path / "out.csv")
    with pytest.raises(SystemExit, match="0"):
        main(["predict", str(folder), "red", "--output", output, "--engine", "onnxruntime", "--shard", "1/1"])
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(folder), "red", "--output", output, "--resume"])
    assert "different: run, engine; put them back as they were" in " ".join(capsys.readouterr().err.split())

"""Exports: what another engine computes is what the original computes, is checked, and is used like a run."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nlp_ft.api.run import load
from nlp_ft.cli import main
from nlp_ft.errors import DataError, MachineError, ModelError, RunFolderError
from nlp_ft.export.check import Check
from nlp_ft.export.export import export_run, require_same
from nlp_ft.prediction import engines
from nlp_ft.prediction.predict import evaluate_run, load_run
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.training.run import train
from tests.report.test_tasks import recipe_of
from tests.tiny import save_tiny_encoder, tiny_recipe
from tests.tiny_choices import choice_recipe
from tests.tiny_decoders import save_tiny_decoder

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")
TEXTS = ["the cat sleeps", "red", "the small the big the cold dog runs"]
SHORT: dict[str, Any] = {"training": {"duration": "1ep"}, "baselines": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    encoder = save_tiny_encoder(folder / "encoder")
    train(recipe_from_dict(tiny_recipe(folder, encoder, baselines=False)))
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    export_run(run, run.with_name("graph"), "openvino")
    return run.with_name("graph")


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_an_export_gives_the_probabilities_of_the_run_for_any_number_and_length_of_texts(
    run: Path, tmp_path: Path, engine: str
) -> None:
    check = export_run(run, tmp_path / "graph", engine)
    original, graph = load_run(run), load_run(tmp_path / "graph")
    for texts in (TEXTS, TEXTS[:1], TEXTS * 40, ["the " * 60]):
        np.testing.assert_allclose(graph.activated(texts), original.activated(texts), atol=2e-6)
    assert (check.rows, check.changed, check.interval) == (21, 0.0, (0.0, 0.0))
    assert (
        check.before
        == check.after
        == json.loads((run / "summary.json").read_text())["metrics"]["validation"]["accuracy"]
    )
    assert 0 < check.largest_difference < 1e-5


def test_an_export_holds_the_graph_and_what_predict_needs_and_no_weights_of_torch(exported: Path) -> None:
    assert {file.name for file in exported.iterdir()} == {
        *("config.json", "export.json", "openvino_model.bin", "openvino_model.xml", "recipe.yaml", "summary.json"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    assert json.loads((exported / "export.json").read_text())["check"]["rows"] == 21


def test_an_export_is_scored_and_asked_by_the_commands_for_runs(
    run: Path, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate_run(exported).scores() == pytest.approx(evaluate_run(run).scores(), abs=1e-6)
    shown = []
    for folder in (run, exported):
        with pytest.raises(SystemExit, match="0"):
            main(["predict", str(folder), *TEXTS])
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[0].startswith("the cat sleeps\n  0.")


@pytest.mark.slow
def test_an_export_is_compared_with_the_run_in_float32_whatever_predict_computes_in(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    recipe = recipe_of("text_regression", tmp_path, tiny_encoder)
    train(recipe_from_dict({**recipe, "training": {**recipe["training"], "precision": "bf16"}}))
    check = export_run(tmp_path / "run", tmp_path / "graph", "openvino")
    assert (check.changed, check.largest_difference < 1e-5) == (0.0, True)
    assert check.before == pytest.approx(check.after, abs=1e-6)


@pytest.mark.slow
def test_integers_of_8_bits_take_a_quarter_and_keep_most_predictions(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    check = export_run(run, tmp_path / "small", "openvino", int8=True, max_loss=100)
    assert check.changed <= 0.25
    assert check.largest_difference > 1e-4
    assert (tmp_path / "small" / "openvino_model.bin").stat().st_size < (run / "model.safetensors").stat().st_size / 2
    assert json.loads((tmp_path / "small" / "export.json").read_text())["is_int8"] is True
    # The scores of the original are not those of the export.
    assert load(tmp_path / "small").metrics == {"validation": {"accuracy": check.after}}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "onnx"])
@pytest.mark.parametrize(
    "task",
    [
        "multi_label_classification",
        "text_regression",
        "token_classification",
        "question_answering",
        "image_classification",
    ],
)
def test_every_task_is_exported_and_predicts_as_the_run(
    task: str, engine: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    train(recipe_from_dict(recipe_of(task, tmp_path, tiny_encoder)))
    check = export_run(tmp_path / "run", tmp_path / "graph", engine)
    assert check.changed == 0.0
    assert check.after == pytest.approx(check.before, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_multiple_choice_is_exported(engine: str, tiny_encoder: Path, tmp_path: Path) -> None:
    train(recipe_from_dict(choice_recipe(tmp_path, tiny_encoder, **SHORT)))
    assert export_run(tmp_path / "run", tmp_path / "graph", engine).changed == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "onnx"])
@pytest.mark.parametrize(
    "model",
    [
        {"pooling": "mean"},
        {"pooling": "max"},
        {"pooling": "cls", "head": {"type": "bottleneck", "bottleneck_size": 8}},
        {"pooling": "attention"},
        {"pooling": "layer_mix"},
        {"pooling": "last_4"},
    ],
    ids=str,
)
def test_every_pooling_and_head_is_exported(model: dict[str, Any], engine: str, tmp_path: Path) -> None:
    encoder = save_tiny_encoder(tmp_path / "encoder", num_hidden_layers=4)
    train(recipe_from_dict(tiny_recipe(tmp_path, encoder, model=model, **SHORT)))
    assert export_run(tmp_path / "run", tmp_path / "graph", engine).changed == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "onnx"])
@pytest.mark.parametrize("kind", ["roberta", "distilbert", "electra", "deberta-v2", "modernbert", "gpt2", "llama"])
def test_every_family_is_exported(kind: str, engine: str, tmp_path: Path) -> None:
    is_decoder = kind in ("gpt2", "llama")
    folder = (save_tiny_decoder if is_decoder else save_tiny_encoder)(tmp_path / "encoder", kind)
    recipe: Any = tiny_recipe(tmp_path, folder, **SHORT)
    recipe["data"]["max_length"] = 32
    train(recipe_from_dict(recipe))
    export_run(tmp_path / "run", tmp_path / "graph", engine)
    original, graph = load_run(tmp_path / "run"), load_run(tmp_path / "graph")
    np.testing.assert_allclose(graph.activated(TEXTS), original.activated(TEXTS), atol=5e-6)


def test_a_graph_that_is_not_the_one_that_was_checked_is_refused(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "graph")
    weights = tmp_path / "graph" / "openvino_model.bin"
    content = bytearray(weights.read_bytes())
    content[100] ^= 1
    weights.write_bytes(content)
    with pytest.raises(
        RunFolderError, match=r"openvino_model.bin is not the file that was checked.*export the run again"
    ):
        load_run(tmp_path / "graph")
    (tmp_path / "graph" / "export.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"export\.json is damaged; export the run again"):
        load_run(tmp_path / "graph")


def test_what_cannot_be_exported_is_refused_and_nothing_is_left(run: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="graph is an export itself"):
        export_run(exported, tmp_path / "again", "onnx")
    with pytest.raises(RunFolderError, match=r"--output: .*run exists and is no export; choose another"):
        export_run(run, run, "onnx", overwrite=True)
    with pytest.raises(RunFolderError, match="pass --overwrite to replace it"):
        export_run(run, exported, "openvino")
    with pytest.raises(RunFolderError, match="No such file or directory"):
        export_run(run, tmp_path / "no" / "graph", "onnx")
    with pytest.raises(RunFolderError, match="is not a finished run"):
        export_run(tmp_path, tmp_path / "graph", "onnx")
    with pytest.raises(DataError, match=r"missing\.csv"):
        export_run(run, tmp_path / "graph", "onnx", data="missing.csv")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "one.csv").write_text("text,label\nthe cat,animal\n")
    with pytest.raises(DataError, match=r"one\.csv must hold 2 rows or more to compare on, got 1"):
        export_run(run, tmp_path / "graph", "onnx", data=str(tmp_path / "one.csv"))
    assert [file.name for file in tmp_path.iterdir()] == ["one.csv"]
    shutil.copytree(run, tmp_path / "damaged")
    (tmp_path / "damaged" / "summary.json").write_text('{"metr')
    with pytest.raises(RunFolderError, match="damaged is not a finished run that can be read"):
        export_run(tmp_path / "damaged", tmp_path / "graph", "onnx")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["damaged", "one.csv"]


@pytest.mark.slow
def test_of_a_run_whose_data_are_gone_other_rows_make_an_export(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "moved")
    recipe = (run / "recipe.yaml").read_text()
    (tmp_path / "moved" / "recipe.yaml").write_text(recipe.replace(str(run.parent / "train.csv"), "gone.csv"))
    with pytest.raises(DataError, match=r"there is no gone\.csv.*; other labelled files are named with --data$"):
        export_run(tmp_path / "moved", tmp_path / "graph", "onnx")
    with pytest.raises(DataError, match=r"there is no gone\.csv.*; other labelled files are named with --data$"):
        evaluate_run(tmp_path / "moved")
    # ONNX Runtime finds the range of the activations as it computes, and needs no row of train.
    test = str(run.parent / "test.csv")
    assert export_run(tmp_path / "moved", tmp_path / "graph", "onnx", int8=True, max_loss=100, data=test).rows == 25


@pytest.mark.slow
def test_a_run_without_validation_is_exported_with_labelled_rows(tmp_path: Path, tiny_encoder: Path) -> None:
    recipe: Any = tiny_recipe(tmp_path, tiny_encoder, **SHORT)
    test = recipe["data"].pop("test")
    recipe["data"].pop("validation")
    recipe["training"].pop("metric", None)
    train(recipe_from_dict(recipe))
    with pytest.raises(DataError, match="has no validation split; name labelled files with --data"):
        export_run(tmp_path / "run", tmp_path / "graph", "openvino")
    assert export_run(tmp_path / "run", tmp_path / "graph", "openvino", data=test).rows == 25


def check_of(before: float, after: float, difference: float = 0.1, metric: str = "accuracy") -> Check:
    return Check(1000, difference, 0.01, metric, before, after, (-0.01, 0.01), 1.0, 2.0)


def test_integers_may_cost_half_a_point_or_half_a_percent_of_an_error() -> None:
    require_same(check_of(0.9, 0.8951), int8=True, max_loss=0.5)
    require_same(check_of(0.80, 0.8039, metric="mse"), int8=True, max_loss=0.5)
    for check, said in (
        (
            check_of(0.9, 0.894),
            "8-bit integers cost 0.60 points of accuracy on 1,000 rows (0.9000 -> 0.8940), more than",
        ),
        (check_of(0.80, 0.8048, metric="mse"), "8-bit integers cost 0.60 percent of mse"),
        (check_of(0.9, float("nan")), "8-bit integers cost nan points"),
    ):
        with pytest.raises(ModelError, match=re.escape(said)):
            require_same(check, int8=True, max_loss=0.5)


def test_float32_must_be_the_same_whatever_may_be_lost() -> None:
    require_same(check_of(0.9, 0.9, difference=1e-4), int8=False, max_loss=0.5)
    for difference in (2e-3, float("nan")):
        with pytest.raises(ModelError, match="the exported model computes something else"):
            require_same(check_of(0.9, 0.9, difference), int8=False, max_loss=100)


def test_a_missing_package_is_named_with_the_extra(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(MachineError, match=r"needs the package openvino; try: pip install 'nlp-ft\[export\]'"):
        export_run(run, tmp_path / "graph", "openvino")
    assert list(tmp_path.iterdir()) == []


def test_what_onnx_cannot_hold_is_an_error_of_the_model(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise torch.onnx.OnnxExporterError("step 2/3 of exporting") from RuntimeError("no form for aten.sub")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(ModelError, match=r"^this model cannot be written as ONNX: no form for aten\.sub; nothing was"):
        export_run(run, tmp_path / "graph", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_is_not_installed_is_no_damage(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(MachineError, match=r"^this needs the package openvino"):
        load_run(exported)


def test_the_command_says_what_it_costs_and_gains(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["export", str(run), "--to", "openvino", "--output", str(tmp_path / "served it")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["engine", "accuracy", "rows/s"]
    assert [line.split()[0] for line in lines[2:4]] == ["torch", "openvino"]
    assert lines[4].startswith("on 21 labelled rows: 0.0% of the predictions change; the score by 0.0 points")
    assert max(map(len, lines)) <= 80 or str(tmp_path) in max(lines, key=len)
    assert f"export: {tmp_path / 'served it'}" in lines
    assert f"predict '{tmp_path / 'served it'}'" in " ".join(" ".join(lines).split())


def test_an_engine_takes_the_threads_of_torch(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")
    seen: dict[str, Any] = {}
    compile_model = openvino.Core.compile_model

    def watched(core: Any, model: Any, device: str, settings: dict[str, Any]) -> Any:
        seen.update(settings)
        return compile_model(core, model, device, settings)

    monkeypatch.setattr(openvino.Core, "compile_model", watched)
    engines.openvino_compute(exported / "openvino_model.xml")
    assert seen == {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}

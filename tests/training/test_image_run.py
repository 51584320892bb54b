"""Whole runs on images: what they leave, that they resume and repeat to the bit, and that frozen stages stay frozen."""

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForImageClassification, pipeline

from nlp_ft.cli import main
from nlp_ft.errors import DataError
from nlp_ft.models.image_classifier import ImageClassifier
from nlp_ft.prediction.predict import Source, evaluate_run, load_run, predict
from nlp_ft.recipe.loader import dump_yaml, recipe_from_dict
from nlp_ft.tasks.classes import ClassOutputs
from nlp_ft.tasks.registry import task_of
from nlp_ft.training.loop import Loop
from nlp_ft.training.run import train
from tests.tiny_images import noisy_image, tiny_image_recipe
from tests.training.test_run import records, same, weights
from tests.training.watched import in_two_processes

FILES = {
    "README.md",
    "config.json",
    "layers.txt",
    "metrics.jsonl",
    "model.safetensors",
    "preprocessor_config.json",
    "recipe.yaml",
    "summary.json",
    "test_confusion_matrix.csv",
    "test_per_class.csv",
    "test_predictions.csv",
    "validation_confusion_matrix.csv",
    "validation_per_class.csv",
    "validation_predictions.csv",
}
MIXED: dict[str, Any] = {"augmentation": {"mixup": 0.4, "cutmix": 1.0, "rotation": 10, "crop_scale": [0.5, 1]}}


def tiny(folder: Path, /, **changes: object) -> Any:
    return recipe_from_dict(tiny_image_recipe(folder, **changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    train(tiny(folder, model={"name": "resnet18"}, training={"duration": "6ep"}, baselines=True))
    return folder / "run"


def test_a_run_leaves_exactly_these_files_and_learns(run: Path) -> None:
    assert {file.name for file in run.iterdir()} == FILES
    summary = json.loads((run / "summary.json").read_text())
    assert summary["global_step"] == 30  # 30 images in batches of 6, 6 times
    assert summary["metrics"]["test"]["accuracy"] == 1.0
    assert summary["baselines"]["test"]["majority"]["accuracy"] == pytest.approx(1 / 3)
    assert summary["versions"]["torchvision"]
    assert summary["data"]["train"]["modes"] == {"RGB": 30}
    assert (run / "layers.txt").read_text().count("stage") == 4
    card = (run / "README.md").read_text()
    assert 'pipeline("image-classification", model="PATH/TO/THIS/FOLDER")' in card
    assert "fine-tuned from resnet18 (random weights)" in card


def test_the_pipeline_the_auto_class_and_predict_agree_with_the_summary(run: Path) -> None:
    files = sorted((run.parent / "test").rglob("*.png"))
    classify = pipeline("image-classification", model=str(run), top_k=3, device="cpu")
    answers = [{row["label"]: row["score"] for row in rows} for rows in classify([str(file) for file in files])]
    ours = predict(run, files)
    for prediction, answer in zip(ours, answers, strict=True):
        assert prediction.scores == pytest.approx(answer, abs=1e-5)
    assert [prediction.label for prediction in ours] == [file.parent.name for file in files]
    assert isinstance(AutoModelForImageClassification.from_pretrained(run), ImageClassifier)
    predictions = evaluate_run(run)
    outputs: object = predictions.outputs
    assert outputs == ClassOutputs(["blue", "green", "red"])
    summary = json.loads((run / "summary.json").read_text())
    assert predictions.scores() == summary["metrics"]["test"]
    assert evaluate_run(run, str(run.parent / "test")).scores() == summary["metrics"]["test"]


def test_the_predictions_of_a_split_name_the_image_files(run: Path) -> None:
    with (run / "test_predictions.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["row", "image", "reference", "predicted", "score", "loss"]
    files = sorted((run.parent / "test").rglob("*.png"))
    assert {int(row["row"]): row["image"] for row in rows} == dict(enumerate(map(str, files)))
    assert [row["reference"] for row in rows] == [Path(row["image"]).parent.name for row in rows]
    assert [float(row["loss"]) for row in rows] == sorted((float(row["loss"]) for row in rows), reverse=True)
    by_file = dict(zip(map(str, files), predict(run, files), strict=True))
    assert [row["score"] for row in rows] == [f"{by_file[row['image']].score:.6f}" for row in rows]


@pytest.mark.parametrize(("data", "listed"), [({}, 30), (MIXED, None)])
def test_the_hardest_images_of_train_are_listed_unless_they_are_mixed(
    data: dict[str, Any], listed: int | None, tmp_path: Path
) -> None:
    model = {"name": "resnet18", "weights": None}
    train(tiny(tmp_path, data=data, model=model, training={"duration": "2ep"}, report=True))
    file = tmp_path / "run/train_hardest.csv"
    assert file.exists() is (listed is not None)
    if listed is not None:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        files = sorted(str(one) for one in (tmp_path / "train").rglob("*.png"))
        assert {int(row["row"]): row["image"] for row in rows} == dict(enumerate(files))
        assert len(rows) == listed


def test_predict_takes_files_folders_zip_files_and_pillow_images(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new").mkdir()
    image, file = noisy_image("red", 9, (50, 70)), tmp_path / "new" / "red.png"
    image.save(file)
    image.convert("L").save(tmp_path / "new" / "grey.png")
    image.convert("RGBA").save(tmp_path / "new" / "alpha.png")
    Image.new("I;16", (50, 70), 30_000).save(tmp_path / "new" / "deep.png")
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
        archive.write(file, "inside/red.png")
    table = tmp_path / "predictions.csv"
    words = [str(tmp_path / "new"), str(tmp_path / "new.zip"), str(file)]
    with pytest.raises(SystemExit, match="0"):
        main(["predict", str(run), *words, "--output", str(table)])
    assert capsys.readouterr().out == f"6 predictions in {table}\n"
    with table.open() as stream:
        rows = list(csv.DictReader(stream))
    names = [Path(row["image"].partition("::")[0]).name for row in rows]
    assert names == ["alpha.png", "deep.png", "grey.png", "red.png", "red.png", "red.png"]
    [from_pillow] = predict(run, [image])
    same_pixels = [rows[0], *rows[3:]]
    assert {row["predicted_label"] for row in same_pixels} == {from_pillow.label} == {"red"}
    assert {row["predicted_score"] for row in same_pixels} == {f"{from_pillow.score:.6f}"}
    file.write_text("no image")
    with pytest.raises(DataError, match=r"predict: .*red\.png cannot be read: Pillow does not recognize it"):
        predict(run, [file])
    with pytest.raises(DataError, match="--file is for texts"):
        next(load_run(run).read(Source("a.csv")))


def test_a_run_that_stops_resumes_to_the_bit_whatever_the_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"duration": "2ep", "checkpoint_every": "3st", "gradient_accumulation_steps": 2}
    whole = tiny(tmp_path, data=MIXED, training={**settings, "per_device_batch_size": 3})
    train(whole)
    values = tiny_image_recipe(tmp_path, data=MIXED, training={**settings, "per_device_batch_size": 3})
    values = {**values, "data": {**values["data"], "num_workers": 2}, "output_dir": str(tmp_path / "again")}  # type: ignore[dict-item]
    recipe = recipe_from_dict(values)
    step = Loop._step

    def stop(self: Loop, batches: object) -> object:
        if self.state.global_step == 7:
            raise KeyboardInterrupt
        return step(self, batches)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe)
    train(recipe, resume=True)
    assert same(weights(tmp_path / "run"), weights(tmp_path / "again"))
    assert (tmp_path / "run/metrics.jsonl").read_text() == (tmp_path / "again/metrics.jsonl").read_text()


def tensors_of(folder: Path, *starts: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if name.startswith(starts)}


def test_frozen_stages_of_a_resnet_keep_weights_and_batch_norm_statistics_to_the_bit(tmp_path: Path) -> None:
    torch.manual_seed(3)
    recipe = tiny_image_recipe(tmp_path, model={"name": "resnet18"}, training={"duration": "1ep", "keep": "last"})
    start = tmp_path / "start"
    model = ImageClassifier(ImageClassifier.config_class(backbone="resnet18", image_size=32))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    model.save_pretrained(start)
    recipe["model"] = {"name": "resnet18", "weights": str(start / "model.safetensors")}
    recipe["strategy"] = {"name": "top_layers", "trainable_blocks": 2, "grain": "stage"}
    summary = train(recipe_from_dict(recipe))
    frozen = ("conv1", "bn1", "layer1", "layer2")
    assert same(tensors_of(start, *frozen), tensors_of(tmp_path / "run", *frozen))
    before, after = tensors_of(start, "layer3", "layer4"), tensors_of(tmp_path / "run", "layer3", "layer4")
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    expected = sum(p.numel() for name, p in model.backbone.named_parameters() if name.startswith(("layer3", "layer4")))
    assert summary["num_trainable_parameters"] == expected + 512 * 3 + 3


def test_a_cnn_unfreezes_stage_by_stage_and_batch_norm_below_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_step, moved = Loop._step, []

    def step(self: Loop, batches: Any) -> torch.Tensor:
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        total = plain_step(self, batches)
        after = self.model.state_dict()
        moved.append({name.split(".")[1] for name in after if not torch.equal(after[name], before[name])})
        return total

    monkeypatch.setattr(Loop, "_step", step)
    train(
        tiny(
            tmp_path,
            model={"name": "resnet18"},
            strategy={"name": "gradual", "grain": "stage", "unfreeze": {"every": "1st"}},
            schedule={"name": "constant", "warmup": "0st"},
            training={"duration": "6st"},
        )
    )
    top_down = ["fc", "layer4", "layer3", "layer2", "layer1"]
    assert moved == [*(set(top_down[: i + 1]) for i in range(5)), {*top_down, "conv1", "bn1"}]


def test_head_only_moves_the_last_layer_alone(tmp_path: Path) -> None:
    summary = train(tiny(tmp_path, strategy={"name": "head_only"}, training={"duration": "1ep"}))
    assert summary["num_trainable_parameters"] == 512 * 3 + 3


def test_each_stage_has_its_rate(tmp_path: Path) -> None:
    optimizer = {"lr": 1e-5, "head_lr": 1e-3}
    train(tiny(tmp_path, optimizer=optimizer, schedule={"name": "constant", "warmup": "0%"}))
    [first, *_] = [record for record in records(tmp_path / "run") if "learning_rates" in record]
    assert first["learning_rates"] == {
        "head": 1e-3,
        "stage 3": 1e-5,
        "stage 2": 1e-5,
        "stage 1": 1e-5,
        "stem": 1e-5,
    }


def test_the_weights_of_a_run_begin_another_with_other_classes(run: Path, tmp_path: Path) -> None:
    recipe = tiny_image_recipe(
        tmp_path,
        model={"name": "resnet18", "weights": str(run / "model.safetensors")},
        strategy={"name": "head_only"},
        training={"duration": "1ep", "keep": "last"},
    )
    for split in ("train", "validation", "test"):
        (tmp_path / split / "red").rename(tmp_path / split / "crimson")
    train(recipe_from_dict(recipe))
    features = ("conv", "bn", "layer")
    assert same(tensors_of(run, *features), tensors_of(tmp_path / "run", *features))
    assert json.loads((tmp_path / "run/config.json").read_text())["id2label"]["1"] == "crimson"


def test_what_is_decided_about_the_images_is_said() -> None:
    recipe = {"task": "image_classification", "data": {"train": "-"}, "output_dir": "-"}
    with_weights = recipe_from_dict({**recipe, "model": {"name": "googlenet"}})
    sizes, auxiliary = task_of(with_weights).notes
    assert sizes == (
        "images of 224 x 224 pixels, for evaluation the middle of the image resized to 256; normalization of googlenet "
        "DEFAULT: mean 0.485, 0.456, 0.406, deviation 0.229, 0.224, 0.225"
    )
    assert auxiliary == "the auxiliary heads of googlenet are left out"
    [sizes] = task_of(recipe_from_dict({**recipe, "model": {"name": "resnet18", "weights": None}})).notes
    assert "normalization of ImageNet (the weights name none): mean 0.485" in sizes


@pytest.mark.parametrize(
    ("override", "head", "layers"),
    [("model.head.type=bottleneck", 512 * 512 + 512 + 512 * 3 + 3, 5), ("strategy.grain=block", 512 * 3 + 3, 10)],
)
def test_validate_and_layers_of_an_image_recipe(
    override: str, head: int, layers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yaml").write_text(dump_yaml(tiny_image_recipe(tmp_path)))
    for command in (["validate"], ["layers", "--verbose"]):
        with pytest.raises(SystemExit, match="0"):
            main([*command, str(tmp_path / "r.yaml"), override])
    validated, _, shown = capsys.readouterr().out.partition("r.yaml: ready to train\n")
    _, _, *table = shown.splitlines()
    assert validated.startswith("split       rows  median size")
    assert len(table) == layers
    assert table[0].split()[1] == "head"
    assert f" {head:,} " in table[0]


@pytest.mark.slow
def test_two_processes_have_the_same_statistics_at_each_checkpoint_and_resume_to_the_bit(tmp_path: Path) -> None:
    lengths = {"duration": "5st", "per_device_batch_size": 3, "checkpoint_every": "2st", "evaluate_every": "3st"}
    files = []
    for name in ("whole", "broken"):
        files.append(tmp_path / f"{name}.yaml")
        recipe = tiny_image_recipe(
            tmp_path, model={"name": "resnet18"}, training=lengths, output_dir=str(tmp_path / name)
        )
        files[-1].write_text(dump_yaml(recipe))
    assert in_two_processes({files[1]: {"kill_at": 3}}).returncode != 0
    result = in_two_processes({file: {} for file in files})
    assert result.returncode == 0, result.stderr[-3000:]
    assert same(weights(tmp_path / "broken"), weights(tmp_path / "whole"))
    assert records(tmp_path / "broken") == records(tmp_path / "whole")

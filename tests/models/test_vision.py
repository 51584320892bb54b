"""Image classifiers: torchvision's names and logits, heads, weights from everywhere they may come, and refusals."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForImageClassification, pipeline

from nlp_ft.data.transforms import Preprocessing, evaluation_transform, pixels
from nlp_ft.errors import ModelError
from nlp_ft.models.image_classifier import ImageClassifier
from nlp_ft.models.vision import build_image_classifier, weights_entry
from nlp_ft.recipe.images import ImageModelSection
from tests.rounding import assert_equal_but_for_rounding

ALL = torchvision.models.list_models(module=torchvision.models)
FAST = ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "regnet_y_400mf", "googlenet", "shufflenet_v2_x0_5"]
HUGE = {name for name in ALL if re.search(r"regnet_y_(32|128)gf|vit_[lh]|vgg|resnext101_64|wide_resnet101", name)}
LAST_LAYERS = {
    "alexnet": "classifier.6",
    "convnext_tiny": "classifier.2",
    "densenet121": "classifier",
    "efficientnet_b0": "classifier.1",
    "googlenet": "fc",
    "inception_v3": "fc",
    "maxvit_t": "classifier.5",
    "mnasnet0_5": "classifier.1",
    "mobilenet_v2": "classifier.1",
    "mobilenet_v3_small": "classifier.3",
    "regnet_y_400mf": "fc",
    "resnet18": "fc",
    "shufflenet_v2_x0_5": "fc",
    "squeezenet1_1": "classifier.1",
    "swin_t": "head",
    "vgg11": "classifier.6",
    "vit_b_32": "heads.head",
}
LABELS = ["blue", "green", "red"]


def section(name: str = "resnet18", weights: str | None = None, **head: Any) -> ImageModelSection:
    return ImageModelSection.model_validate({"name": name, "weights": weights, "head": head})


def built(
    name: str = "resnet18", weights: str | None = None, size: int = 64, pretrained: bool = True, **head: Any
) -> ImageClassifier:
    torch.manual_seed(0)
    return build_image_classifier(section(name, weights, **head), LABELS, size, pretrained)


def smallest_size(name: str) -> int:
    return 224 if name.startswith(("vit", "maxvit")) else 96 if name == "inception_v3" else 64


def logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        output = model.eval()(images)
    return output if isinstance(output, torch.Tensor) else output.logits


def the_error(*arguments: Any, **settings: Any) -> str:
    with pytest.raises(ModelError) as caught:
        built(*arguments, **settings)
    return str(caught.value)


def check_round_trip(name: str, folder: Path) -> None:
    """Saved, the model loads with the Auto class and with torchvision alone, and gives the same logits."""
    size = smallest_size(name)
    model = built(name, size=size)
    model.save_pretrained(folder)
    images = torch.randn(2, 3, size, size)
    expected = logits(model, images)
    assert expected.shape == (2, 3)
    options: dict[str, Any] = {"num_classes": 3}
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "transform_input": True, "init_weights": False}
    plain = torchvision.models.get_model(name, **options)
    tensors = load_file(folder / "model.safetensors")
    assert tensors.keys() == plain.state_dict().keys()
    own = plain.state_dict()
    with torch.no_grad():
        for key, tensor in tensors.items():
            own[key].copy_(tensor)
    assert_equal_but_for_rounding(logits(plain, images), expected)
    again = AutoModelForImageClassification.from_pretrained(folder)
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in again.state_dict().items())
    assert_equal_but_for_rounding(logits(again, images), expected)
    assert again.config.id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize("name", FAST)
def test_a_saved_model_is_torchvisions_and_transformers(name: str, tmp_path: Path) -> None:
    check_round_trip(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(ALL) - set(FAST) - HUGE))
def test_every_model_of_torchvision_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    check_round_trip(name, tmp_path)


@pytest.mark.parametrize(("name", "last"), LAST_LAYERS.items())
def test_the_last_layer_is_found_by_structure(name: str, last: str) -> None:
    with torch.device("meta"):
        model = built(name, size=224, pretrained=False)
        bottleneck = built(name, size=224, pretrained=False, type="bottleneck")
    layer = model.backbone.get_submodule(last)
    assert model.head_name == bottleneck.head_name == last
    assert layer.weight.shape[0] == 3  # type: ignore[index]
    head = bottleneck.backbone.get_submodule(last)
    assert [tuple(p.shape[:2]) for p in head.parameters() if p.ndim > 1] == [(512, layer.weight.shape[1]), (3, 512)]  # type: ignore[index]


@pytest.mark.slow
def test_every_model_of_torchvision_gets_a_bottleneck_without_its_weights() -> None:
    with torch.device("meta"):
        models = {name: built(name, size=224, pretrained=False, type="bottleneck") for name in sorted(set(ALL) - HUGE)}
    assert len(models) > 60
    for name, model in models.items():
        heads = [key for key, _ in model.backbone.named_parameters() if key.startswith(f"{model.head_name}.")]
        assert len(heads) == 4, name


def test_the_bottleneck_is_the_classic_head_for_dog_breeds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    breeds = [f"breed {i}" for i in range(120)]
    model = build_image_classifier(section("resnet50", type="bottleneck", bottleneck_size=512), breeds, 64)
    model.save_pretrained(tmp_path)
    classic = torchvision.models.resnet50()
    classic.fc = nn.Sequential(nn.Linear(2048, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 120))
    classic.load_state_dict(load_file(tmp_path / "model.safetensors"))
    images = torch.randn(2, 3, 64, 64)
    assert_equal_but_for_rounding(logits(classic, images), logits(model, images))
    assert model.backbone.fc[2].p == 0.5  # type: ignore[union-attr,index]


@pytest.mark.parametrize(
    ("name", "last", "place"), [("squeezenet1_1", "classifier.1", "classifier.0"), ("googlenet", "fc", "dropout")]
)
def test_a_dropout_that_the_network_has_is_set(name: str, last: str, place: str) -> None:
    model = built(name, dropout=0.35)
    assert model.backbone.get_submodule(place).p == 0.35
    assert type(model.backbone.get_submodule(last)) in (nn.Linear, nn.Conv2d)


def test_a_network_without_dropout_gets_one_and_keeps_its_names() -> None:
    model, images = built("resnet18", dropout=0.5), torch.randn(4, 3, 64, 64)
    plain = built("resnet18")
    assert model.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(model.state_dict())
    assert_equal_but_for_rounding(logits(model, images), logits(plain, images))
    model.eval().backbone.fc.train()
    with torch.inference_mode():
        drawn = [model(images).logits for _ in range(2)]
    assert not torch.equal(drawn[0], drawn[1])


def test_the_pipeline_gives_the_logits_of_our_own_evaluation(tmp_path: Path) -> None:
    model = built("resnet18", size=64).eval()
    preprocessing = Preprocessing(64, 80)
    model.save_pretrained(tmp_path)
    preprocessing.image_processor().save_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (90 + i, 130, 3)).astype(np.uint8)) for i in range(3)]
    classify = pipeline("image-classification", model=str(tmp_path), function_to_apply="none", top_k=3, device="cpu")
    answers = [{row["label"]: row["score"] for row in rows} for rows in classify(images)]
    transform = evaluation_transform(preprocessing)
    expected = logits(model, torch.stack([transform(pixels(image)) for image in images]))
    for answer, row in zip(answers, expected, strict=True):
        assert [answer[label] for label in LABELS] == pytest.approx(row.tolist(), abs=1e-5)


def test_a_file_of_weights_gives_everything_but_the_last_layer(tmp_path: Path) -> None:
    source = built("resnet18", type="bottleneck", bottleneck_size=8)
    nn.init.ones_(source.backbone.bn1.running_mean)  # type: ignore[union-attr,arg-type]
    source.save_pretrained(tmp_path)
    torch.manual_seed(1)
    model = build_image_classifier(section("resnet18", str(tmp_path / "model.safetensors")), LABELS, 64)
    wanted = {k: v for k, v in source.backbone.state_dict().items() if not k.startswith("fc.")}
    found = model.backbone.state_dict()
    assert found.keys() - wanted.keys() == {"fc.weight", "fc.bias"}
    assert all(torch.equal(found[key], tensor) for key, tensor in wanted.items())


def cached(name: str, tensors: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a file where torchvision keeps the downloaded weights of a model."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(folder))
    (folder / "checkpoints").mkdir()
    url = torchvision.models.get_model_weights(name).DEFAULT.url
    torch.save(tensors, folder / "checkpoints" / Path(url).name)


@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V1"])
def test_named_weights_are_torchvisions_own(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    source = torchvision.models.resnet18()
    cached("resnet18", source.state_dict(), tmp_path, monkeypatch)
    model = built("resnet18", weights)
    assert torch.equal(model.backbone.get_parameter("conv1.weight"), source.conv1.weight)
    assert model.backbone.get_parameter("fc.weight").shape == (3, 512)


def test_the_old_names_of_densenet_and_auxiliary_heads_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = torchvision.models.densenet121()
    old = {re.sub(r"(denselayer\d+\.(norm|conv))([12])\.", r"\1.\3.", k): v for k, v in source.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    cached("densenet121", old, tmp_path, monkeypatch)
    model = built("densenet121", "DEFAULT")
    name = "features.denseblock1.denselayer1.norm1.weight"
    assert torch.equal(model.backbone.get_parameter(name), source.get_parameter(name))
    (tmp_path / "inception").mkdir()
    inception = torchvision.models.inception_v3(init_weights=False)
    cached("inception_v3", inception.state_dict(), tmp_path / "inception", monkeypatch)
    model = built("inception_v3", "DEFAULT", size=96)
    name = "Mixed_7c.branch1x1.conv.weight"
    assert torch.equal(model.backbone.get_parameter(name), inception.get_parameter(name))


class Trap:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


def test_a_pickle_in_the_place_of_downloaded_weights_runs_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cached("resnet18", {"conv1.weight": Trap()}, tmp_path, monkeypatch)
    assert "model.weights: ResNet18_Weights.IMAGENET1K_V1 cannot be downloaded from" in the_error("resnet18", "DEFAULT")
    assert not Path("unpickled").exists()


def test_weights_that_cannot_be_downloaded_are_refused_with_the_place_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))

    def offline(*arguments: object, **settings: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    assert the_error("resnet18", "DEFAULT") == (
        "model.weights: ResNet18_Weights.IMAGENET1K_V1 cannot be downloaded from "
        "https://download.pytorch.org/models/resnet18-f37072fd.pth: Name or service not known; put the file at "
        f"{tmp_path / 'checkpoints/resnet18-f37072fd.pth'}, or name a safetensors file"
    )


def test_names_that_torchvision_does_not_know_are_refused_with_the_nearest(tmp_path: Path) -> None:
    error = the_error("resnet51")
    assert error == "model.name: resnet51 is not a classification model of torchvision; did you mean resnet50?"
    assert the_error("fcn_resnet50").startswith("model.name: fcn_resnet50 is not a classification model of torchvision")
    assert the_error("resnet50", "IMAGENET1K_V3") == (
        "model.weights: resnet50 has no weights IMAGENET1K_V3 (nor is it a file); did you mean IMAGENET1K_V2?"
    )
    with pytest.raises(ModelError, match=r"; there are: DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2$"):
        weights_entry(section("resnet50", "best"))


def test_files_that_are_no_weights_of_the_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    assert the_error(weights=str(file)) == (
        f"model.weights: {file} cannot be read as safetensors: there is no such file"
    )
    file.write_bytes(b"no weights")
    assert the_error(weights=str(file)).startswith(f"model.weights: {file} cannot be read as safetensors: ")
    torch.save({}, tmp_path / "a.pth")
    assert "is a pickle, which can run code and is not read" in the_error(weights=str(tmp_path / "a.pth"))
    save_file(torchvision.models.resnet34().state_dict(), file)
    assert f"model.weights: {file} does not fit resnet18: " in the_error(weights=str(file))
    save_file(torchvision.models.resnet50().state_dict(), file)
    assert "layer1.0.conv1.weight" in the_error(weights=str(file))
    assert "(the file has (64, 64, 1, 1), the network (64, 64, 3, 3))" in the_error(weights=str(file))


def test_an_image_size_that_the_network_cannot_take_is_refused() -> None:
    assert the_error("alexnet", size=32).startswith("data.image_size: alexnet takes no images of 32 pixels: ")


@pytest.mark.parametrize(("name", "size"), [("vit_b_32", 33), ("maxvit_t", 32)])
def test_an_image_size_that_the_network_cannot_be_built_for_is_refused(name: str, size: int) -> None:
    with torch.device("meta"):
        assert the_error(name, size=size).startswith(
            f"data.image_size: {name} takes no images of {size} pixels: Input "
        )


def test_a_batch_of_one_small_image_is_refused_where_batch_norm_would_learn_from_it() -> None:
    classifier = built("resnet18", size=32)
    image = torch.zeros(1, 3, 32, 32)
    assert classifier.eval()(image).logits.shape[0] == 1
    with pytest.raises(ModelError) as caught:
        classifier.train()(image)
    assert str(caught.value) == (
        "training.per_device_batch_size: BatchNorm of resnet18 has no statistics of a batch of one image of 32 pixels; "
        "take batches of 2 images or more, or a larger data.image_size"
    )


def test_a_vision_transformer_is_built_for_the_size_of_the_images() -> None:
    assert built("vit_b_32", size=64).backbone.get_parameter("encoder.pos_embedding").shape == (1, 5, 768)


def test_without_torchvision_the_error_tells_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    assert the_error() == (
        "task: image_classification needs torchvision, which is not installed; try: pip install 'nlp-ft[vision]'"
    )

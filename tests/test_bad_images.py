"""Each bad recipe, data set or network for images ends in one clear message and exit code 2."""

import shutil
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import torchvision

from nlp_ft.recipe.loader import dump_yaml
from tests.test_bad_inputs import Trap, assert_fails, failure, work_in
from tests.tiny_images import noisy_image, tiny_image_recipe, write_images

BAD_SETTINGS = [
    (
        ["task=image_clasification"],
        ["task must be 'text_classification', 'multi_", "did you mean image_classification?"],
    ),
    (["data.max_length=3"], ["data.max_length is not a key", "did you mean task: text_classification"]),
    (["data.augmentation.flip=1"], ["data.augmentation.flip is not a key", "did you mean horizontal_flip?"]),
    (["data.augmentation.mixup=-1"], ["data.augmentation.mixup must be in [0, 100), got -1"]),
    (["data.augmentation.crop=centre"], ["data.augmentation.crop must be", "got 'centre'; did you mean center?"]),
    (["data.augmentation.crop_scale=[1, 0.5]"], ["data.augmentation.crop_scale must be two shares in (0, 1]"]),
    (["data.augmentation.crop_padding=4"], ["crop_padding is a setting of crop: random, not of random_resized"]),
    (["data.augmentation.rand_augment.magnitude=31"], ["rand_augment.magnitude must be in [0, 30], got 31"]),
    (["data.resize_size=16"], ["data.resize_size must be at least image_size 32, got 16"]),
    (["strategy.grain=stages"], ["strategy.grain must be 'block' or 'stage', got 'stages'; did you mean stage?"]),
    (["strategy=top_layers", "strategy.trainable_blocks=9", "strategy.grain=stage"], ["must be at most 3", "got 9"]),
]
BAD_DATA = [
    (["data.train=nowhere"], ["data.train: there is no nowhere"]),
    (["data.train=broken"], ["data.train: 1 image(s) cannot be read: broken/red/cut.png: "]),
    (["data.test=broken"], ["data.test: 1 image(s) cannot be read: broken/red/cut.png: "]),
    (["data.train=with_empty_class"], ["with_empty_class/yellow holds no image; add some, or remove the folder"]),
    (["data.train=empty"], ["data.train: empty holds no image"]),
    (["data.train=loose"], ["data.train: loose: 00.png and 3 more are in no class folder"]),
    (["data.train=splits"], ["data.train: splits holds splits (test, train), not classes; name it in data.source"]),
    (["data.train=one_class"], ["two labels or more", "holds only: ['red']"]),
    (["data.test=other_class"], ["test has label(s) that the train split does not have: pink"]),
    (["data.train=escape.zip"], ["escape.zip has a name that leads out of it, '../red/a.png'"]),
    (["data.train=damaged.zip"], ["data.train: damaged.zip cannot be read as a zip file"]),
    (["data.train=texts.csv"], ["data.image is 'image', but the columns are: text, label"]),
    (["data.train=[splits/train, texts.csv]"], ["folders or zip files of images and other files cannot be mixed"]),
    (["data.source=splits", "data.train=dev"], ["data.train: splits has no folder dev", "it has: test, train"]),
    (["data.source=texts.csv", "data.train=train"], ["data.source: texts.csv is not a folder or zip file of images"]),
]
BAD_MODELS = [
    (
        ["model.name=resnet19"],
        ["model.name: resnet19 is not a classification model of torchvision; did you mean resnet18?"],
    ),
    (
        ["model.weights=IMAGENET"],
        ["squeezenet1_1 has no weights IMAGENET (nor is it a file); did you mean IMAGENET1K_V1?"],
    ),
    (["model.weights=nowhere.safetensors"], ["model.weights: nowhere.safetensors", "there is no such file"]),
    (["model.weights=other.safetensors"], ["other.safetensors does not fit squeezenet1_1"]),
    (["model.weights=pickled.pth"], ["pickled.pth is a pickle, which can run code and is not read"]),
    (["model.name=vit_b_32", "model.weights=other.safetensors"], ["other.safetensors does not fit vit_b_32"]),
    (["model.name=alexnet"], ["data.image_size: alexnet takes no images of 32 pixels"]),
]
CASES = [*BAD_SETTINGS, *BAD_DATA, *BAD_MODELS]


def save_inputs(folder: Path) -> None:
    """A good recipe, `good.yaml`, with what it needs, and the bad inputs beside it."""
    from safetensors.torch import save_file

    recipe = tiny_image_recipe(folder, output_dir="run")
    data = {**recipe["data"], "train": "train", "validation": "validation", "test": "test"}  # type: ignore[dict-item]
    (folder / "good.yaml").write_text(dump_yaml({**recipe, "data": data}))
    small = write_images(folder / "small", 2)
    for name in ("broken", "with_empty_class", "other_class", "one_class"):
        shutil.copytree(small, folder / name)
    whole = (small / "red" / "00.png").read_bytes()
    (folder / "broken" / "red" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "with_empty_class" / "yellow").mkdir()
    (folder / "other_class" / "red").rename(folder / "other_class" / "pink")
    shutil.rmtree(folder / "one_class" / "blue")
    shutil.rmtree(folder / "one_class" / "green")
    (folder / "empty").mkdir()
    (folder / "loose").mkdir()
    for i in range(4):
        noisy_image("red", i).save(folder / "loose" / f"{i:02d}.png")
    shutil.copytree(small, folder / "splits" / "train")
    shutil.copytree(small, folder / "splits" / "test")
    with zipfile.ZipFile(folder / "escape.zip", "w") as archive:
        archive.writestr("../red/a.png", whole)
    (folder / "damaged.zip").write_bytes(b"no zip")
    (folder / "texts.csv").write_text("text,label\nred,a\nblue,b\n")
    save_file(torchvision.models.shufflenet_v2_x0_5().state_dict(), folder / "other.safetensors")
    torch.save(Trap(), folder / "pickled.pth")


@pytest.fixture(scope="session")
def image_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs, made once."""
    folder = tmp_path_factory.mktemp("inputs")
    save_inputs(folder)
    return folder


@pytest.fixture
def workplace(image_inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, for one test: the inputs by their names, and no run."""
    return work_in(tmp_path, image_inputs, monkeypatch)


@pytest.mark.parametrize(("changes", "fragments"), CASES, ids=[" ".join(changes) for changes, _ in CASES])
@pytest.mark.usefixtures("workplace")
def test_what_cannot_be_trained_is_refused_in_one_line_before_anything_is_written(
    changes: list[str], fragments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert_fails(capsys, ["validate", "good.yaml", *changes], fragments)
    assert not Path("unpickled").exists()


@pytest.mark.parametrize(("changes", "fragments"), [BAD_DATA[1], BAD_DATA[9], BAD_MODELS[1], BAD_MODELS[3]])
@pytest.mark.usefixtures("workplace")
def test_training_refuses_the_same(
    changes: list[str], fragments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert_fails(capsys, ["train", "good.yaml", *changes], fragments)


@pytest.mark.parametrize("command", ["train", "validate", "layers"])
@pytest.mark.usefixtures("workplace")
def test_without_torchvision_the_message_tells_how_to_install_it(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    line = failure(capsys, command, "good.yaml")
    assert line == (
        "error: "
        + ("good.yaml: " if command == "validate" else "")
        + "task: image_classification needs torchvision, which is not installed; try: pip install 'nlp-ft[vision]'"
    )

"""Transforms: evaluation as torchvision and Transformers do it; training drawn from seed, epoch and row alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import ConvNeXt_Base_Weights, ResNet18_Weights, ResNet50_Weights, Swin_T_Weights
from torchvision.transforms import v2

from nlp_ft.data.batch import IGNORED_LABEL
from nlp_ft.data.batch_loading import EpochStream, load_batches
from nlp_ft.data.batch_sampling import RowBatches
from nlp_ft.data.images import ImageData, load_image_data
from nlp_ft.data.transforms import (
    ImageCollator,
    Preprocessing,
    evaluation_transform,
    pixels,
    training_transform,
)
from nlp_ft.errors import DataError
from nlp_ft.recipe.images import AugmentationSection, ImageDataSection
from tests.tiny_images import noisy_image, write_images

PRESETS = [ResNet18_Weights.IMAGENET1K_V1, ResNet50_Weights.IMAGENET1K_V2, Swin_T_Weights.IMAGENET1K_V1]
EVERYTHING: dict[str, Any] = {
    "rotation": 20,
    "translation": 0.1,
    "vertical_flip": 0.5,
    "rand_augment": {},
    "mixup": 0.4,
    "cutmix": 1.0,
}
NOTHING: dict[str, Any] = {"crop": "center", "horizontal_flip": 0}
SMALL = Preprocessing(image_size=24, resize_size=32)


def augmentation(**settings: Any) -> AugmentationSection:
    return AugmentationSection(**settings)


def large_image(width: int = 320, height: int = 280) -> Image.Image:
    return noisy_image("green", 3, (width, height))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """24 images of 3 labels."""
    return load_image_data(ImageDataSection(train=str(write_images(tmp_path_factory.mktemp("data") / "train", 8))))


def batches_of(data: ImageData, collator: ImageCollator, rows: list[list[int]], workers: int = 0) -> list[Any]:
    batches = [np.array(of_batch) for of_batch in rows]
    return list(load_batches(data.encoded["train"], batches, collator, workers))


@pytest.mark.parametrize("weights", PRESETS, ids=str)
def test_evaluation_is_the_preset_of_the_weights_to_one_level_of_256(weights: Any) -> None:
    preset = weights.transforms()
    ours = evaluation_transform(Preprocessing.of_recipe(ImageDataSection(train="-"), preset))
    difference = (ours(pixels(large_image())) - preset(large_image())).abs()
    assert float(difference.max()) <= 1 / 255 / 0.224 + 1e-6
    # Torchvision before 0.24 rounds a fifth of the values to the other of two levels.
    assert float(difference.mean()) < 5e-3


@pytest.mark.parametrize("weights", PRESETS, ids=str)
@pytest.mark.parametrize("size", [(320, 280), (287, 333), (224, 225), (90, 1000)])
def test_the_saved_image_processor_does_what_evaluation_does(
    weights: Any, size: tuple[int, int], tmp_path: Path
) -> None:
    preprocessing = Preprocessing.of_recipe(ImageDataSection(train="-"), weights.transforms())
    processor = preprocessing.image_processor()
    expected = processor(large_image(*size), return_tensors="pt").pixel_values[0]
    ours = evaluation_transform(preprocessing)(pixels(large_image(*size)))
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-6)
    processor.save_pretrained(tmp_path)
    assert Preprocessing.of_processor(type(processor).from_pretrained(tmp_path)) == preprocessing


@pytest.mark.parametrize(
    ("weights", "settings", "sizes"),
    [
        (None, {}, (224, 256)),
        (None, {"image_size": 32}, (32, 37)),
        (None, {"image_size": 32, "resize_size": 32}, (32, 32)),
        (ResNet50_Weights.IMAGENET1K_V2, {}, (224, 232)),
        (ResNet50_Weights.IMAGENET1K_V2, {"image_size": 224}, (224, 232)),
        (ResNet50_Weights.IMAGENET1K_V2, {"image_size": 64}, (64, 73)),
        (ConvNeXt_Base_Weights.IMAGENET1K_V1, {"resize_size": 300}, (224, 300)),
    ],
)
def test_sizes_are_the_recipes_or_the_weights_own(
    weights: Any, settings: dict[str, int], sizes: tuple[int, int]
) -> None:
    section = ImageDataSection(train="-", **settings)
    found = Preprocessing.of_recipe(section, weights and weights.transforms())
    assert (found.image_size, found.resize_size) == sizes
    assert (found.mean, found.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_images_resized_to_less_than_is_cut_out_of_them_are_refused() -> None:
    section = ImageDataSection(train="-", resize_size=100)
    with pytest.raises(DataError, match=r"data\.resize_size must be at least 224, data\.image_size, got 100"):
        Preprocessing.of_recipe(section, None)


def test_without_augmentation_training_sees_what_evaluation_sees() -> None:
    image = pixels(large_image())
    ours = training_transform(SMALL, augmentation(**NOTHING))
    assert torch.equal(ours(image), evaluation_transform(SMALL)(image))


@pytest.mark.parametrize(
    ("settings", "dims"), [({"horizontal_flip": 1}, [2]), ({"vertical_flip": 1}, [1])], ids=["left-right", "top-bottom"]
)
def test_a_flip_turns_the_image_over(settings: dict[str, float], dims: list[int]) -> None:
    image = pixels(large_image())
    ours = training_transform(SMALL, augmentation(**{**NOTHING, **settings}))
    assert torch.equal(ours(image), evaluation_transform(SMALL)(image).flip(dims))


def test_a_shift_stays_within_its_share_and_fills_with_the_mean_colour() -> None:
    # A white image: what is not white was shifted in.
    white = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    shifted = training_transform(Preprocessing(32, 32), augmentation(**NOTHING, translation=0.25))
    shifts = set()
    for seed in range(40):
        torch.manual_seed(seed)
        image = shifted(white)
        filled = image.abs().amax(0) < 0.05
        columns, rows = int(filled.all(0).sum()), int(filled.all(1).sum())
        assert bool((filled | (image.amin(0) > 2)).all())
        shifts |= {columns, rows}
    assert max(shifts) == 8
    assert len(shifts) > 5


def test_a_rotation_stays_within_its_angle() -> None:
    # A white disc with one black spoke to the right; the spoke's end tells the angle.
    rows, columns = torch.meshgrid(torch.arange(101) - 50, torch.arange(101) - 50, indexing="ij")
    image = torch.full((3, 101, 101), 255, dtype=torch.uint8)
    image[:, (rows.abs() < 3) & (columns > 0)] = 0
    rotated = training_transform(Preprocessing(101, 101), augmentation(**NOTHING, rotation=30))
    angles = []
    for seed in range(40):
        torch.manual_seed(seed)
        spoke = (rotated(image)[0] < 0) & ((rows**2 + columns**2 - 40**2).abs() < 80)
        angles.append(float(torch.atan2(rows[spoke].float().mean(), columns[spoke].float().mean()) * 180 / torch.pi))
    assert -31 < min(angles) < -20
    assert 20 < max(angles) < 31


def test_a_random_crop_of_a_padded_image_moves_by_the_padding() -> None:
    image = pixels(noisy_image("red", 1, (32, 32)))
    plain = evaluation_transform(Preprocessing(32, 32))(image)
    cropped = training_transform(Preprocessing(32, 32), augmentation(crop="random", crop_padding=2, horizontal_flip=0))
    found = set()
    for seed in range(60):
        torch.manual_seed(seed)
        crop = cropped(image)
        found |= {
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if torch.equal(crop[:, 2:-2, 2:-2], torch.roll(plain, (down, right), (1, 2))[:, 2:-2, 2:-2])
        }
    assert len(found) > 20
    assert {max(map(abs, shift)) for shift in found} == {0, 1, 2}


def test_a_random_resized_crop_is_torchvisions_of_the_given_scale() -> None:
    image = pixels(large_image())
    ours = training_transform(SMALL, augmentation(crop_scale=(0.1, 0.2), horizontal_flip=0))
    reference = v2.Compose([v2.RandomResizedCrop(24, (0.1, 0.2)), *evaluation_transform(SMALL).transforms[2:]])  # type: ignore[attr-defined]
    torch.manual_seed(4)
    expected = reference(image)
    torch.manual_seed(4)
    assert torch.equal(ours(image), expected)


def test_what_is_drawn_depends_on_seed_epoch_and_row_alone(data: ImageData) -> None:
    settings = {key: value for key, value in EVERYTHING.items() if key not in ("mixup", "cutmix")}

    def images(seed: int = 5, epoch: int = 2, rows: tuple[tuple[int, ...], ...] = ((3, 4, 5),)) -> torch.Tensor:
        collator = ImageCollator(SMALL, augmentation(**settings), 3, seed).at_epoch(epoch)
        batches = batches_of(data, collator, [list(of_batch) for of_batch in rows])
        return torch.cat([batch["pixel_values"] for batch in batches])

    first = images()
    torch.manual_seed(77)
    assert torch.equal(images(), first)
    assert torch.equal(images(rows=((5,), (4, 3)))[[2, 1, 0]], first)
    for other in (images(seed=6), images(epoch=3), images(seed=2, epoch=5)):
        assert not any(torch.equal(a, b) for a, b in zip(other, first, strict=True))


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_no_bit(workers: int, data: ImageData) -> None:
    collator = ImageCollator(SMALL, augmentation(**EVERYTHING), 3, seed=1)

    def epoch(num_workers: int) -> list[torch.Tensor]:
        batches = RowBatches(5, 1, 1, group_by_length=False, drop_last=True)
        stream = EpochStream(data.encoded["train"], data.lengths("train"), collator, batches, 0, 1, num_workers)
        return [tensor for _, micro in stream(3, 1) for batch in micro for tensor in batch.values()]

    alone, shared = epoch(0), epoch(workers)
    assert len(alone) == 3 * 3  # images, numbers and labels of batches 1 to 3; the 4 rows left over are dropped
    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))


def test_making_batches_leaves_the_global_random_state_alone(data: ImageData) -> None:
    torch.manual_seed(11)
    before = torch.get_rng_state()
    batches_of(data, ImageCollator(SMALL, augmentation(**EVERYTHING), 3), [[0, 1, 2], [3, 4]])
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_draws_nothing_and_keeps_the_ids(data: ImageData) -> None:
    collator = ImageCollator(SMALL)
    [batch] = batches_of(data, collator, [[0, 9, 23]])
    [again] = batches_of(data, collator.at_epoch(7), [[0, 9, 23]])
    assert torch.equal(batch["pixel_values"], again["pixel_values"])
    assert batch["labels"].tolist() == [0, 1, 2]
    assert batch["pixel_values"].shape == (3, 3, 24, 24)


def test_mixup_blends_images_and_labels_by_the_same_share(data: ImageData) -> None:
    [plain] = batches_of(data, ImageCollator(SMALL), [[0, 9, 23]])
    [mixed] = batches_of(data, ImageCollator(SMALL, augmentation(**NOTHING, mixup=1.0), 3), [[0, 9, 23]])
    own = mixed["labels"].diagonal()
    share = float(own[0])
    assert own.tolist() == pytest.approx([share] * 3)
    assert mixed["labels"].sum(1).tolist() == pytest.approx([1, 1, 1])
    expected = share * plain["pixel_values"] + (1 - share) * plain["pixel_values"].roll(1, 0)
    torch.testing.assert_close(mixed["pixel_values"], expected)
    assert 0.05 < share < 0.95


def test_cutmix_pastes_as_much_as_the_labels_say(data: ImageData) -> None:
    [plain] = batches_of(data, ImageCollator(SMALL), [[0, 9, 23]])
    [mixed] = batches_of(data, ImageCollator(SMALL, augmentation(**NOTHING, cutmix=1.0), 3, seed=3), [[0, 9, 23]])
    pasted = (mixed["pixel_values"] != plain["pixel_values"]).any(1).float().mean((1, 2))
    assert (1 - mixed["labels"].diagonal()).tolist() == pytest.approx(pasted.tolist(), abs=0.02)
    assert 0 < float(pasted[0]) < 1


def test_a_row_that_fills_a_batch_has_no_share_of_any_label(data: ImageData) -> None:
    row = {**data.encoded["train"][0], "labels": IGNORED_LABEL}
    batch = ImageCollator(SMALL, augmentation(mixup=1.0), 3)([row])
    assert batch["labels"].tolist() == [[0, 0, 0]]

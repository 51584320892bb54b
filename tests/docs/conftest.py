"""A folder that holds what the code blocks speak of, small: data, an encoder, images, a recipe and finished runs."""

import shutil
from pathlib import Path

import pytest

from nlp_ft.recipe.loader import load_recipe
from nlp_ft.training.run import train
from tests.docs.blocks import README, ROOT, blocks_of
from tests.tiny import save_tiny_encoder, write_tiny_csv
from tests.tiny_images import COLOURS, noisy_image

SMALL_IMAGES = ["model.weights=null", "data.image_size=32", "training.duration=1st"]
"""Laid over recipes for images: no download, and little work."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; `bert-base-uncased` is a tiny BERT of 6 blocks in it."""
    folder = tmp_path_factory.mktemp("place")
    save_tiny_encoder(folder / "bert-base-uncased", num_hidden_layers=6)
    for seed, (name, rows) in enumerate({"train": 96, "test": 24, "labelled": 12, "new": 9}.items()):
        write_tiny_csv(folder / f"{name}.csv", rows, seed)
    write_splits(folder / "all.csv", 60)
    write_pairs(folder / "pairs.csv", 40)
    write_flowers(folder / "flowers")
    for name in ("recipes", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    [recipe] = [block for block in blocks_of(README) if block.language == "yaml"]
    (folder / "mine.yaml").write_text(recipe.code)
    [images, *_] = [block for block in blocks_of(ROOT / "docs/images.md") if block.language == "yaml"]
    (folder / "flowers.yaml").write_text(images.code)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(load_recipe("mine.yaml", ["training.duration=1ep"]))
        train(load_recipe("flowers.yaml", SMALL_IMAGES))
    shutil.copytree(folder / "runs/mine", folder / "runs/quickstart")
    return folder


def write_splits(file: Path, rows: int) -> None:
    """Texts and labels with a column that tells the split of each row."""
    header, *lines = write_tiny_csv(file, rows).read_text().splitlines()
    splits = ["train", "train", "train", "validation", "test"]
    lines = [f"{line},{splits[row // 3 % len(splits)]}" for row, line in enumerate(lines)]
    file.write_text("\n".join([f"{header},split", *lines]) + "\n")


def write_pairs(file: Path, rows: int) -> None:
    """Pairs of texts, and the share of words that they have in common."""
    lines = ["sentence1,sentence2,score"]
    lines += [f"the cat,{'the cat' if row % 2 else 'a red dog'},{(row % 2) + row / 1000}" for row in range(rows)]
    file.write_text("\n".join(lines) + "\n")


def write_flowers(folder: Path) -> None:
    """Images of three kinds of flowers, each of one colour."""
    for split, per_class in (("train", 10), ("test", 2)):
        for kind, colour in zip(("daisy", "rose", "tulip"), COLOURS, strict=True):
            (folder / split / kind).mkdir(parents=True)
            for number in range(per_class):
                noisy_image(colour, number).save(folder / split / kind / f"{number}.jpg")

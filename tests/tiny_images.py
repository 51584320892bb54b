"""Small images whose colour is their class, and a recipe for them."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (40, 200, 60), "red": (200, 60, 40)}


def noisy_image(colour: str, seed: int, size: tuple[int, int] = (40, 36)) -> Image.Image:
    """The colour with noise; width and height in pixels."""
    noise = np.random.default_rng(seed).integers(-40, 41, (size[1], size[0], 3))
    return Image.fromarray((np.array(COLOURS[colour]) + noise).clip(0, 255).astype(np.uint8))


def write_images(folder: Path, per_class: int, first_seed: int = 0, suffix: str = "png") -> Path:
    """A folder with a sub-folder for each colour; sizes differ a little."""
    for i, colour in enumerate(sorted(COLOURS)):
        (folder / colour).mkdir(parents=True)
        for k in range(per_class):
            seed = first_seed + 100 * i + k
            noisy_image(colour, seed, (40 + k % 3, 36)).save(folder / colour / f"{k:02d}.{suffix}")
    return folder


def tiny_image_recipe(folder: Path, /, **changes: object) -> dict[str, object]:
    """A recipe as nested dicts: 30 images of train, batches of 6, 2 epochs; SqueezeNet from nothing at 32 pixels."""
    for split, per_class, first_seed in (("train", 10, 0), ("validation", 3, 1000), ("test", 4, 2000)):
        if not (folder / split).exists():
            write_images(folder / split, per_class, first_seed)
    recipe: dict[str, object] = {
        "task": "image_classification",
        "data": {**{split: str(folder / split) for split in ("train", "validation", "test")}, "image_size": 32},
        "model": {"name": "squeezenet1_1", "weights": None},
        "strategy": {"name": "full", "grain": "stage"},
        "optimizer": {"lr": 1e-3},
        "training": {"duration": "2ep", "per_device_batch_size": 6, "precision": "fp32"},
        "output_dir": str(folder / "run"),
        "report": False,
    }
    for key, value in changes.items():
        section = recipe.get(key)
        recipe[key] = {**section, **value} if isinstance(section, dict) and isinstance(value, dict) else value
    return recipe

"""Hashes of the weights that twelve small recipes train: a change that moves code leaves them as they are.

    python -m tests.weights_of_recipes > before.txt    # and again, in the changed checkout on the same machine

Weights depend on the processor and on the versions of the libraries, so that no hashes are kept here.
"""

import contextlib
import hashlib
import io
import tempfile
from pathlib import Path

import yaml

from nlp_ft.cli import main
from tests.tiny import save_tiny_encoder, tiny_recipe
from tests.tiny_images import tiny_image_recipe

STRATEGIES = ("full", "llrd", "head_only", "top_layers", "gradual", "lp_ft", "discriminative", "ulmfit", "scratch")


def recipes(folder: Path) -> dict[str, dict[str, object]]:
    """A recipe of each strategy, one with the model's own head and class weights, two of images."""
    encoder = save_tiny_encoder(folder / "encoder")
    found = {name: tiny_recipe(folder, encoder, strategy={"name": name}) for name in STRATEGIES}
    found["plain"] = tiny_recipe(folder, encoder, model={"pooling": "auto"}, loss={"class_weights": "balanced"})
    for name in ("full", "gradual"):
        found[f"images {name}"] = tiny_image_recipe(folder / "images", strategy={"name": name})
    return found


def train(name: str, recipe: dict[str, object], folder: Path) -> str:
    """The hash of model.safetensors after a run of the recipe."""
    file, run = folder / f"{name}.yaml", folder / name
    file.write_text(yaml.safe_dump({**recipe, "output_dir": str(run)}))
    with contextlib.suppress(SystemExit):
        main(["train", str(file)])
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        for name, recipe in recipes(Path(temporary)).items():
            with contextlib.redirect_stdout(io.StringIO()):
                digest = train(name, recipe, Path(temporary))
            print(f"{name}: {digest}")

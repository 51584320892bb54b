"""The folder that every trial gets a copy of: a recipe that is right, its data and encoder, and runs of each kind."""

import importlib
import os
from pathlib import Path

from nlp_ft.recipe.loader import dump_yaml
from tests.fuzz.driver import at_work, command, in_process
from tests.tiny import save_tiny_encoder, tiny_recipe
from tests.tiny_images import tiny_image_recipe

GOING = ("training.checkpoint_every=3st", "output_dir=going")
LOADED = (
    "accelerate",
    "nlp_ft.training.inspection",
    "nlp_ft.prediction.image_run",
    "nlp_ft.prediction.predict",
    "nlp_ft.prediction.text_run",
    "nlp_ft.tasks.image_classification",
    "nlp_ft.tasks.text_classification",
    "nlp_ft.training.run",
    "pyarrow.parquet",
    "sklearn.metrics",
    "torch._dynamo",
    "transformers.models.align",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
)
"""Loaded once, for all the processes that are forked."""
CACHED = ("strategy=head_only", "training.feature_cache=auto")


def make_workplace(folder: Path, with_images: bool = True) -> Path:
    """Fill a new folder:

    `good.yaml`, `train.csv`, `validation.csv`, `test.csv`, `encoder`; `finished`, a run of it; `going.partial`, the
    same run killed after step 9 of 14, with its checkpoint; `cached`, a run with features, and `cache`, where they lie;
    with images `images.yaml`, `images` and `seen`, a run of it.
    """
    for name in LOADED:
        importlib.import_module(name)
    folder.mkdir(parents=True)
    code = in_process(lambda: _make(folder, with_images), 300)
    assert code == 0, f"the workplace could not be made: {code}"
    return folder


def _make(folder: Path, with_images: bool) -> int:
    at_work(folder)
    (folder.parent / "made").write_text("")
    out = os.open(folder.parent / "made", os.O_WRONLY)
    os.dup2(out, 1)
    save_tiny_encoder(folder / "encoder")
    Path("good.yaml").write_text(dump_yaml(tiny_recipe(Path(), Path("encoder"), output_dir="run")))
    codes = [
        command(["train", "good.yaml", *GOING[:1], "output_dir=finished"]),
        command(["train", "good.yaml", *CACHED, "output_dir=cached"]),
        in_process(_train_and_die, 60),
    ]
    if with_images:
        images = Path("images")
        recipe = tiny_image_recipe(images, output_dir="seen", training={"duration": "3st"})
        Path("images.yaml").write_text(dump_yaml(recipe))
        codes.append(command(["train", "images.yaml"]))
    return 0 if codes[:2] == [0, 0] and codes[2] == 9 and codes[3:] == [0] * len(codes[3:]) else 1


def _train_and_die() -> int:
    """As `kill -9` right after the third checkpoint."""
    from nlp_ft.training import durable

    rename = durable.rename

    def renamed(source: Path, target: Path) -> None:
        rename(source, target)
        if target.name == "step-00000009":
            os._exit(9)

    durable.rename = renamed
    return command(["train", "good.yaml", *GOING])

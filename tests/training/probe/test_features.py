"""The features of all layers: those of Transformers, pooled, in the order of the rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from nlp_ft.errors import ModelError, TrainingError
from nlp_ft.layerwise.eval_mode import evaluating
from nlp_ft.models.scaling import last_linear
from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.tasks.registry import task_of
from nlp_ft.training.probe.features import layer_features
from tests.tiny import tiny_recipe
from tests.tiny_images import tiny_image_recipe
from tests.tiny_words import words_recipe


def features_of(values: dict[str, Any], *splits: str, **options: Any) -> tuple[Any, dict[str, np.ndarray]]:
    recipe = recipe_from_dict(values)
    task = task_of(recipe)
    return task, layer_features(recipe, task, splits, **options)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_they_are_the_hidden_states_of_the_encoder_pooled_over_the_tokens(
    tiny_encoder: Path, tmp_path: Path, pooling: str
) -> None:
    task, found = features_of(tiny_recipe(tmp_path, tiny_encoder, model={"pooling": pooling}), "train", "test")
    encoder, tokenizer = AutoModel.from_pretrained(tiny_encoder).eval(), AutoTokenizer.from_pretrained(tiny_encoder)
    assert found["train"].shape == (3, 50, 16)
    texts = task.data.texts("test")
    assert found["test"].shape == (3, len(texts), 16)
    for row in (0, 7, 24):
        with torch.no_grad():
            states = encoder(**tokenizer(texts[row], return_tensors="pt"), output_hidden_states=True).hidden_states
        expected = torch.stack([state[0, 0] if pooling == "cls" else state[0].mean(0) for state in states])
        assert np.allclose(found["test"][:, row], expected.numpy(), atol=1e-5)


def test_a_plain_classifier_of_transformers_gives_the_mean_over_its_tokens(tiny_encoder: Path, tmp_path: Path) -> None:
    values = tiny_recipe(tmp_path, tiny_encoder)
    _, pooled = features_of(values, "test")
    _, plain = features_of({**values, "model": {"name": str(tiny_encoder)}}, "test")
    assert np.allclose(plain["test"], pooled["test"], atol=1e-5)


def test_a_text_of_several_windows_has_the_mean_of_theirs(tiny_encoder: Path, tmp_path: Path) -> None:
    windows = {"max_length": 6, "truncation": "windows", "stride": 1}
    task, found = features_of(tiny_recipe(tmp_path, tiny_encoder, data=windows), "train")
    encoded = task.data.encoded["train"]
    rows = task.data.windows("train").rows
    row = int(np.bincount(rows).argmax())
    encoder = AutoModel.from_pretrained(tiny_encoder).eval()
    vectors = []
    for window in np.flatnonzero(rows == row):
        with torch.no_grad():
            vectors.append(encoder(torch.tensor([encoded[int(window)]["input_ids"]])).last_hidden_state[0].mean(0))
    assert len(vectors) > 1
    assert found["train"].shape == (3, 50, 16)
    assert np.allclose(found["train"][-1, row], torch.stack(vectors).mean(0).numpy(), atol=1e-5)


def test_those_of_images_are_the_input_of_the_head(tmp_path: Path) -> None:
    recipe = recipe_from_dict(tiny_image_recipe(tmp_path, model={"name": "resnet18"}, strategy="head_only"))
    task = task_of(recipe)
    model = task.build_model(task.data.label_names)
    found = layer_features(recipe, task, ["test"], model=model)["test"]
    collator = task.collator(training=False)
    batch = collator([task.data.encoded["test"][row] for row in range(found.shape[1])])
    head = last_linear(model, len(task.data.label_names))
    assert head is not None
    with evaluating(model):
        expected = model(batch["pixel_values"]).logits
        assert torch.allclose(head(torch.from_numpy(found[0])), expected, atol=1e-4)


def test_a_network_without_a_linear_head_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^model\.name: squeezenet1_1 has no linear head, which a probe needs$"):
        features_of(tiny_image_recipe(tmp_path, strategy="head_only"), "test")


def test_rows_without_a_vector_each_are_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    expected = "a probe needs one vector a row, which the rows of token_classification do not have"
    with pytest.raises(TrainingError, match=expected):
        features_of(words_recipe(tmp_path, tiny_encoder), "train")

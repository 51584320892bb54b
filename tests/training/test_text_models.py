"""Whole runs of decoders and of poolings with weights: train, predict, resume to the bit, load elsewhere."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nlp_ft.prediction.predict import load_run
from nlp_ft.recipe.loader import dump_yaml, load_recipe
from nlp_ft.training.run import train
from tests.rounding import assert_equal_but_for_rounding
from tests.tiny import save_tiny_encoder, tiny_recipe
from tests.tiny_decoders import END, save_tiny_decoder
from tests.training.test_gradual import assert_equal_to_the_bit
from tests.training.test_run import weights
from tests.training.watched import in_a_process, watched_train

TEXTS = ["the cat runs", "big", "the dog sleeps the bird eats cold"]
GRADUAL = {"name": "gradual", "unfreeze": {"every": "2st"}}


def recipe_file(folder: Path, encoder: Path, name: str, pooling: str, **training: Any) -> Path:
    values = tiny_recipe(
        folder,
        encoder,
        model={"pooling": pooling},
        strategy=GRADUAL,
        training={"keep": "last", "checkpoint_every": "4st", **training},
        output_dir=str(folder / name),
    )
    (folder / f"{name}.yaml").write_text(dump_yaml(values))
    return folder / f"{name}.yaml"


def model_folder(folder: Path, kind: str) -> Path:
    return save_tiny_encoder(folder, num_hidden_layers=4) if kind == "bert" else save_tiny_decoder(folder, kind)


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [
        ("gpt2", "auto"),
        ("bert", "attention"),
        *(
            pytest.param(*model, marks=pytest.mark.slow)
            for model in [("llama", "auto"), ("qwen3", "mean"), ("bert", "layer_mix"), ("bert", "last_4")]
        ),
    ],
)
def test_a_run_predicts_one_text_as_a_batch_and_its_folder_loads_with_the_same_logits(
    tmp_path: Path, kind: str, pooling: str
) -> None:
    train(load_recipe(str(recipe_file(tmp_path, model_folder(tmp_path / "model", kind), "run", pooling))))
    run = load_run(tmp_path / "run")
    together, alone = run.predict(TEXTS), [run.predict([text])[0] for text in TEXTS]
    assert [one.label for one in together] == [one.label for one in alone]
    found = [list(one.scores.values()) for one in together]
    assert_equal_but_for_rounding(found, [list(one.scores.values()) for one in alone])
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    assert_equal_but_for_rounding(logits.softmax(-1), found)
    assert type(model).__name__.startswith("Pooled") is (pooling != "auto")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "pooling"), [("gpt2", "auto"), ("bert", "attention"), ("bert", "layer_mix")])
def test_a_killed_run_resumes_to_the_bit(tmp_path: Path, kind: str, pooling: str) -> None:
    folder = model_folder(tmp_path / "model", kind)
    files = [recipe_file(tmp_path, folder, name, pooling) for name in ("whole", "broken")]
    watched_train(str(files[0]))
    assert in_a_process(files[1], 10) == -9
    assert in_a_process(files[1], 10**9) == 0
    assert_equal_to_the_bit(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.parametrize(
    ("kind", "pooling", "cached"),
    [
        ("gpt2", "auto", {"2", "3", "4"}),
        pytest.param("bert", "layer_mix", {"4"}, marks=pytest.mark.slow),
        pytest.param("bert", "attention", {"2", "3", "4"}, marks=pytest.mark.slow),
    ],
)
def test_a_run_with_features_ends_with_the_weights_of_one_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, pooling: str, cached: set[str]
) -> None:
    monkeypatch.setenv("NLP_FT_CACHE", str(tmp_path / "cache"))
    folder = model_folder(tmp_path / "model", kind)
    ended = {}
    for name in ("off", "auto"):
        settings = {"feature_cache": name, "duration": "12ep", "evaluate_every": "4ep"}
        file = recipe_file(tmp_path, folder, name, pooling, **settings)
        layers = "head: 0st, 4: 28st, 3: 56st, 2: never, 1: never, embeddings: never"
        unfreeze = {"name": "gradual", "unfreeze": {"layers": layers}}
        train(load_recipe(str(file), [f"strategy={unfreeze}", "model.dropout=0", "model.head.dropout=0"]))
        ended[name] = weights(tmp_path / name)
    assert {folder.name.rpartition("-")[2] for folder in (tmp_path / "cache/features").glob("*-*")} == cached
    assert max(float((ended["off"][name] - ended["auto"][name]).abs().max()) for name in ended["off"]) < 1e-4


def test_a_run_says_once_that_the_end_token_pads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(load_recipe(str(recipe_file(tmp_path, save_tiny_decoder(tmp_path / "model"), "run", "auto"))))
    said = " ".join(capsys.readouterr().out.split())
    assert said.count(f"its end token {END} pads") == 1

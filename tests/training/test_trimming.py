"""Runs that train the used rows of the embedding table: the same weights, also after a kill, and never by surprise."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nlp_ft.errors import RunFolderError
from nlp_ft.recipe.loader import load_recipe
from nlp_ft.training import trimming
from nlp_ft.training.run import train
from tests.tiny import save_tiny_encoder
from tests.training.features.test_feature_cache import kept, largest_difference
from tests.training.test_gradual import assert_equal_to_the_bit, write_recipe
from tests.training.watched import in_a_process, in_two_processes, watched_steps, watched_train

LLRD = "llrd"
GRADUAL = {"name": "gradual", "unfreeze": {"every": "3st"}}
TABLE = "encoder.embeddings.word_embeddings.weight"
TOKENS = 19
"""Words and marks of the tokenizer; the table has 200 rows."""


@pytest.fixture(scope="module")
def wide_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_encoder(tmp_path_factory.mktemp("wide"), vocab_size=200)


def trained(folder: Path, encoder: Path, name: str, strategy: Any = LLRD, *overrides: str, **settings: Any) -> Path:
    train(load_recipe(write_recipe(folder, encoder, name, strategy, **settings), overrides))
    return folder / name


def table_of(file: Path) -> torch.Tensor:
    return load_file(file)[TABLE]


def is_trimmed(shown: str) -> bool:
    return "of its 200 rows are in use" in shown


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion"])
@pytest.mark.parametrize("strategy", [LLRD, GRADUAL], ids=["llrd", "gradual"])
def test_a_trimmed_run_ends_with_the_weights_of_a_whole_one(
    tmp_path: Path, wide_encoder: Path, optimizer: str, strategy: Any
) -> None:
    options = [f"optimizer={{name: {optimizer}, lr: 1e-3, weight_decay: 0.1}}"]
    off = trained(tmp_path, wide_encoder, "off", strategy, *options, "training.trim_vocabulary=off")
    auto = trained(tmp_path, wide_encoder, "auto", strategy, *options)
    assert largest_difference(off, auto) < 2e-6
    assert table_of(auto / "model.safetensors").shape == (200, 16)


def test_what_weight_decay_does_to_unused_rows_is_in_the_saved_table(tmp_path: Path, wide_encoder: Path) -> None:
    file = write_recipe(tmp_path, wide_encoder, "run", LLRD)
    file.write_text(file.read_text().replace("optimizer:\n", "optimizer:\n  weight_decay: 0.5\n"))
    watched_train(str(file))
    rates = [
        {rate for name, rate in line["rates"].items() if name.startswith("embeddings")}
        for line in watched_steps(tmp_path / "run")
    ]
    expected = math.prod(1 - 0.5 * rate for [rate] in rates)
    first = load_file(wide_encoder / "model.safetensors")["embeddings.word_embeddings.weight"]
    ratio = (table_of(tmp_path / "run" / "model.safetensors") / first)[TOKENS:]
    assert len(rates) == 14
    assert expected < 0.998
    torch.testing.assert_close(ratio, torch.full_like(ratio, expected), rtol=1e-6, atol=0)


def test_the_rows_in_use_are_said_and_only_they_have_moments_in_the_checkpoint(
    tmp_path: Path, wide_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watched_train(str(write_recipe(tmp_path, wide_encoder, "run", LLRD)))
    assert "embedding table: 14 of its 200 rows are in use" in capsys.readouterr().out
    [checkpoint] = (tmp_path / "run.checkpoints").glob("step-*")
    assert load_file(checkpoint / "optimizer.safetensors")[f"{TABLE}|exp_avg"].shape == (15, 16)


@pytest.mark.parametrize(
    ("strategy", "overrides"),
    [
        (LLRD, ["training.trim_vocabulary=off"]),
        (LLRD, ["optimizer={name: adafactor, lr: 1e-3}"]),
        ("head_only", []),
    ],
    ids=["off", "adafactor", "head_only"],
)
def test_the_table_stays_whole_where_trimming_is_off_or_inexact_or_of_no_use(
    tmp_path: Path, wide_encoder: Path, capsys: pytest.CaptureFixture[str], strategy: Any, overrides: list[str]
) -> None:
    trained(tmp_path, wide_encoder, "run", strategy, *overrides)
    assert not is_trimmed(capsys.readouterr().out)


def test_a_small_table_stays_whole(tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path, tiny_encoder, "run")
    assert "embedding table" not in capsys.readouterr().out


def test_a_trimmed_run_that_is_killed_ends_as_the_unbroken_one(tmp_path: Path, wide_encoder: Path) -> None:
    files = [write_recipe(tmp_path, wide_encoder, name, GRADUAL) for name in ("whole", "broken")]
    watched_train(str(files[0]))
    for step in (8, 12):
        assert in_a_process(files[1], step) == -9
    assert in_a_process(files[1], 10**9) == 0
    assert_equal_to_the_bit(tmp_path / "broken", tmp_path / "whole")


def test_going_on_with_other_tokens_in_validation_is_refused(tmp_path: Path, wide_encoder: Path) -> None:
    file = write_recipe(tmp_path, wide_encoder, "run", LLRD)
    assert in_a_process(file, 8) == -9
    validation = tmp_path / "validation.csv"
    validation.write_text(validation.read_text() + "warm cold,size\n")
    with pytest.raises(RunFolderError, match="texts of validation"):
        train(load_recipe(file), resume=True)


def test_a_gradual_run_finds_the_features_of_a_run_that_trained_the_head_alone(
    tmp_path: Path, wide_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NLP_FT_CACHE", str(tmp_path / "cache"))
    settings: dict[str, Any] = {"duration": "12ep", "evaluate_every": "4ep"}
    trained(tmp_path, wide_encoder, "head", "head_only", **settings)
    before = set((tmp_path / "cache" / "features").iterdir())
    trained(tmp_path, wide_encoder, "gradual", {"name": "gradual", "unfreeze": {"every": "3ep"}}, **settings)
    assert kept(tmp_path / "cache" / "features") == {1, 2}
    assert len(set((tmp_path / "cache" / "features").iterdir()) - before) == 2


@pytest.mark.slow
def test_two_processes_that_trim_end_with_the_weights_of_one(tmp_path: Path, wide_encoder: Path) -> None:
    settings: dict[str, Any] = {"dropout": 0.0, "head_dropout": 0.0}
    two = write_recipe(tmp_path, wide_encoder, "two", GRADUAL, per_device_batch_size=4, **settings)
    result = in_two_processes({two: {}})
    assert result.returncode == 0, result.stderr[-3000:]
    assert watched_steps(tmp_path / "two", 0) == watched_steps(tmp_path / "two", 1)
    one = trained(tmp_path, wide_encoder, "one", GRADUAL, **settings)
    assert largest_difference(one, tmp_path / "two") < 1e-5


class Rounding(torch.nn.Module):
    """Gives other logits at each call."""

    def __init__(self, difference: float) -> None:
        super().__init__()
        self.difference, self.calls = difference, 0

    def forward(self, **inputs: torch.Tensor) -> SimpleNamespace:
        self.calls += 1
        return SimpleNamespace(logits=torch.ones(2) + self.calls * self.difference)


def test_a_table_is_trimmed_where_logits_differ_by_rounding_alone() -> None:
    vocabulary = SimpleNamespace(trim=lambda: None, restore=lambda: None)
    found = [
        trimming._changes_nothing(SimpleNamespace(model=Rounding(difference), example=dict), vocabulary)  # type: ignore[arg-type]
        for difference in (0.0, 2e-7, 1e-3)
    ]
    assert found == [True, True, False]

"""Runs whose last block goes on with the first token alone: the weights of those that compute it whole."""

from pathlib import Path
from typing import Any

import pytest

from nlp_ft.recipe.loader import load_recipe
from nlp_ft.training.run import train
from tests.training.features.test_feature_cache import kept, largest_difference
from tests.training.test_gradual import assert_equal_to_the_bit, write_recipe
from tests.training.watched import in_a_process, watched_train

GRADUAL = {"name": "gradual", "unfreeze": {"every": "2ep"}}
SAID = "only the first token goes on"


def trained(folder: Path, encoder: Path, name: str, strategy: Any, *overrides: str) -> Path:
    settings: dict[str, Any] = {"dropout": 0.0, "head_dropout": 0.0, "duration": "9ep", "evaluate_every": "3ep"}
    train(load_recipe(write_recipe(folder, encoder, name, strategy, **settings), overrides))
    return folder / name


@pytest.mark.parametrize(
    ("strategy", "pooling", "boundaries"),
    [("full", "cls", set()), (GRADUAL, "cls", {1, 2}), ("head_only", "auto", {2})],
    ids=["full", "gradual", "head_only"],
)
def test_a_run_of_the_first_token_ends_with_the_weights_of_a_whole_one(
    tmp_path: Path,
    tiny_encoder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    strategy: Any,
    pooling: str,
    boundaries: set[int],
) -> None:
    monkeypatch.setenv("NLP_FT_CACHE", str(tmp_path / "cache of the whole"))
    pooling = f"model.pooling={pooling}"
    off = trained(tmp_path, tiny_encoder, "off", strategy, pooling, "training.trim_last_block=off")
    assert SAID not in capsys.readouterr().out
    monkeypatch.setenv("NLP_FT_CACHE", str(tmp_path / "cache"))
    auto = trained(tmp_path, tiny_encoder, "auto", strategy, pooling)
    assert SAID in capsys.readouterr().out
    assert kept(tmp_path / "cache" / "features") == boundaries
    assert largest_difference(off, auto) < 1e-5


def test_a_run_that_pools_all_tokens_computes_its_last_block_whole(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path, tiny_encoder, "run", "full", "model.pooling=mean")
    assert SAID not in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_of_the_first_token_that_is_killed_ends_as_the_unbroken_one(tmp_path: Path, tiny_encoder: Path) -> None:
    strategy = {"name": "gradual", "unfreeze": {"every": "3st"}}
    files = [write_recipe(tmp_path, tiny_encoder, name, strategy) for name in ("whole", "broken")]
    for file in files:
        file.write_text(file.read_text().replace("pooling: mean", "pooling: cls"))
    watched_train(str(files[0]))
    for step in (5, 11):
        assert in_a_process(files[1], step) == -9
    assert in_a_process(files[1], 10**9) == 0
    assert_equal_to_the_bit(tmp_path / "broken", tmp_path / "whole")

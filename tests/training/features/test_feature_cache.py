"""Features of frozen blocks: the same results, found again, never stale, and made only where they pay."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nlp_ft.layerwise.prefix import FrozenPrefix
from nlp_ft.recipe.loader import load_recipe
from nlp_ft.training.features.cache import Features
from nlp_ft.training.features.decide import SplitUse, expected_savings
from nlp_ft.training.run import train
from tests.tiny import save_tiny_encoder
from tests.training.test_gradual import assert_equal_to_the_bit, write_recipe
from tests.training.test_run import weights
from tests.training.watched import in_a_process, in_two_processes, watched_steps, watched_train

GRADUAL = {"name": "gradual", "unfreeze": {"every": "3ep"}}
CHAIN = {"name": "gradual", "unfreeze": {"every": "4ep", "order": "one_at_a_time"}}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NLP_FT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def train_as(folder: Path, encoder: Path, name: str, strategy: Any, *overrides: str, **training: Any) -> Path:
    settings = {"duration": "12ep", "evaluate_every": "4ep", "head_dropout": 0.0, **training}
    train(load_recipe(write_recipe(folder, encoder, name, strategy, **settings), overrides))
    return folder / name


def kept(cache: Path) -> set[int]:
    """The boundaries in the cache."""
    return {int(folder.name.rpartition("-")[2]) for folder in cache.glob("*-*")}


def largest_difference(first: Path, second: Path) -> float:
    one, other = weights(first), weights(second)
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize(
    ("strategy", "boundaries"),
    [pytest.param("head_only", {2}, marks=pytest.mark.slow), (GRADUAL, {1, 2}), ("lp_ft", {2})],
)
def test_a_run_with_features_ends_with_the_weights_of_one_without(
    tmp_path: Path, tiny_encoder: Path, cache: Path, strategy: Any, boundaries: set[int]
) -> None:
    off = train_as(tmp_path, tiny_encoder, "off", strategy, feature_cache="off")
    assert kept(cache) == set()
    auto = train_as(tmp_path, tiny_encoder, "auto", strategy)
    assert kept(cache) == boundaries
    assert largest_difference(off, auto) < 1e-5
    records = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (off, auto)]
    assert [len(lines) for lines in records] == [len(records[0])] * 2


def test_a_layer_that_trained_and_is_frozen_again_is_not_taken_from_the_cache(
    tmp_path: Path, tiny_encoder: Path, cache: Path
) -> None:
    """Chain-thaw trains the embeddings alone, then block 1 alone: below block 2 all has left its first values."""
    off = train_as(tmp_path, tiny_encoder, "off", CHAIN, duration="20ep", feature_cache="off")
    auto = train_as(tmp_path, tiny_encoder, "auto", CHAIN, duration="20ep")
    assert kept(cache) == {2}
    assert largest_difference(off, auto) < 1e-5


@pytest.mark.slow
def test_a_run_with_features_that_is_killed_ends_as_the_unbroken_one(
    tmp_path: Path, tiny_encoder: Path, cache: Path
) -> None:
    settings = {"duration": "12ep", "evaluate_every": "1ep"}
    files = [write_recipe(tmp_path, tiny_encoder, name, GRADUAL, **settings) for name in ("whole", "broken")]
    watched_train(str(files[0]))
    shutil.rmtree(cache)
    assert in_a_process(files[1], 22) == -9
    assert in_a_process(files[1], 10**9) == 0
    assert_equal_to_the_bit(tmp_path / "broken", tmp_path / "whole")
    assert kept(cache) == {1, 2}


@pytest.mark.slow
def test_two_processes_with_features_end_with_the_weights_of_one(
    tmp_path: Path, tiny_encoder: Path, cache: Path
) -> None:
    settings: dict[str, Any] = {"duration": "12ep", "dropout": 0.0, "head_dropout": 0.0}
    two = write_recipe(tmp_path, tiny_encoder, "two", GRADUAL, per_device_batch_size=4, **settings)
    result = in_two_processes({two: {}})
    assert result.returncode == 0, result.stderr[-3000:]
    assert kept(cache) == {1, 2}
    assert watched_steps(tmp_path / "two", 0) == watched_steps(tmp_path / "two", 1)
    shutil.rmtree(cache)
    one = train_as(tmp_path, tiny_encoder, "one", GRADUAL, **settings)
    assert largest_difference(one, tmp_path / "two") < 1e-5


def test_the_next_run_on_the_same_data_finds_the_features_and_computes_none(
    tmp_path: Path, tiny_encoder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_as(tmp_path, tiny_encoder, "first", GRADUAL)
    before = sorted(cache.iterdir())
    splits: list[int] = []
    plain = FrozenPrefix.capture

    def counted(self: FrozenPrefix, batch: Any, *rest: Any) -> Any:
        splits.append(len(batch["input_ids"]))
        return plain(self, batch, *rest)

    monkeypatch.setattr(FrozenPrefix, "capture", counted)
    train_as(tmp_path, tiny_encoder, "second", "head_only", "seed=5")
    assert sorted(cache.iterdir()) == before
    assert max(splits) == 3  # the rows of the trials


def test_a_validation_of_the_same_rows_as_train_has_its_features_in_common(
    tmp_path: Path, tiny_encoder: Path, cache: Path
) -> None:
    train_as(tmp_path, tiny_encoder, "run", "head_only", f"data.validation={tmp_path / 'train.csv'}")
    assert len(list(cache.iterdir())) == 1


def edit_data(folder: Path, encoder: Path) -> list[str]:
    file = write_recipe(folder, encoder, "unused", "llrd").with_name("train.csv")
    other = folder / "other.csv"
    other.write_text(file.read_text().replace("the cat", "the dog", 1))
    return [f"data.train={other}"]


def edit_weights(folder: Path) -> list[str]:
    encoder = save_tiny_encoder(folder / "other_encoder")
    from safetensors.torch import load_file, save_file

    tensors = load_file(encoder / "model.safetensors")
    tensors["encoder.layer.0.output.dense.bias"][3] += 0.25
    save_file(tensors, encoder / "model.safetensors", metadata={"format": "pt"})
    return [f"model.name={encoder}"]


@pytest.mark.slow
def test_other_data_weights_truncation_or_precision_have_features_of_their_own(
    tmp_path: Path, tiny_encoder: Path, cache: Path
) -> None:
    changes = [
        [],
        edit_data(tmp_path, tiny_encoder),
        edit_weights(tmp_path),
        ["data.max_length=6"],
        ["training.feature_precision=half"],
    ]
    found: list[set[Path]] = [set()]
    for number, overrides in enumerate(changes):
        train_as(tmp_path, tiny_encoder, str(number), "head_only", *overrides)
        found.append(set(cache.iterdir()))
    # Validation is not edited, so its features are found; all else is made anew.
    assert [len(after - before) for before, after in pairwise(found)] == [2, 1, 2, 2, 2]


@pytest.mark.slow
def test_features_of_half_precision_change_the_weights_by_no_more_than_their_rounding(
    tmp_path: Path, tiny_encoder: Path, cache: Path
) -> None:
    half = train_as(tmp_path, tiny_encoder, "half", "head_only", feature_precision="half")
    off = train_as(tmp_path, tiny_encoder, "off", "head_only", feature_cache="off")
    # bf16 keeps 8 bits: a relative error of 2^-8 in the features.
    assert 0 < largest_difference(half, off) < 2e-2


@pytest.mark.parametrize(
    ("boundary_of_phase", "passes", "budget", "expected"),
    [
        ([6], [20], 999, ((6,), 12_000, 600, True)),
        ([6], [1], 999, ((6,), 600, 600, False)),
        ([6, 5, 0], [1, 1, 5], 999, ((5, 6), 1_100, 600, True)),
        ([6, 5, 4], [1, 1, 1], 25, ((4, 6), 1_400, 600, True)),
        ([6, 5, 4], [1, 5, 1], 25, ((4, 5), 3_400, 500, True)),
        ([6], [20], 9, ((), 0, 0, False)),
        ([0, 0], [3, 3], 999, ((), 0, 0, False)),
    ],
)
def test_one_pass_is_weighed_against_those_that_it_spares(
    boundary_of_phase: list[int], passes: list[float], budget: int, expected: tuple[Any, ...]
) -> None:
    """100 tokens; a boundary takes 10 bytes. Without room for all, the boundary goes that spares least."""
    bytes_of = dict.fromkeys(range(1, 7), 10)
    savings = expected_savings(boundary_of_phase, [SplitUse(100, passes)], bytes_of, budget)
    assert (savings.boundaries, savings.work_saved, savings.work_of_pass, savings.pays) == expected


@pytest.mark.slow
def test_features_used_longest_ago_give_way_to_new_ones(tmp_path: Path, tiny_encoder: Path, cache: Path) -> None:
    train_as(tmp_path, tiny_encoder, "first", "head_only")
    first = set(cache.iterdir())
    size = sum(file.stat().st_size for file in cache.rglob("values"))
    room = f"training.feature_cache_gb={1.5 * size / 1e9:.12f}"
    train_as(tmp_path, tiny_encoder, "second", "head_only", *edit_weights(tmp_path), room)
    assert first - set(cache.iterdir())
    assert sum(file.stat().st_size for file in cache.rglob("values")) <= 1.5 * size


@pytest.mark.parametrize(
    ("strategy", "overrides", "said"),
    [
        ("head_only", ["training.duration=1st"], "feature cache: off, as it would save "),
        (
            "head_only",
            ["training.feature_cache_gb=1e-9"],
            "feature cache: off, feature_cache_gb or the disk is too small",
        ),
        ("head_only", [], "feature cache: on, for the outputs of block 2: "),
    ],
)
def test_what_is_decided_is_said(
    tmp_path: Path,
    tiny_encoder: Path,
    cache: Path,
    capsys: pytest.CaptureFixture[str],
    strategy: str,
    overrides: list[str],
    said: str,
) -> None:
    train_as(tmp_path, tiny_encoder, "run", strategy, *overrides)
    assert said in capsys.readouterr().out
    assert bool(kept(cache)) == ("cache: on" in said)


def test_rows_come_back_in_any_order_as_they_were_written(tmp_path: Path) -> None:
    lengths = np.array([2, 3, 1])
    (tmp_path / "values").write_bytes(bytes(6 * 4 * 4))
    features = Features(tmp_path / "values", lengths, 4, torch.float32, to_write=True)
    vectors = torch.arange(24.0).view(6, 4)
    features.write(np.array([1, 0]), vectors[:5])
    features.write(np.array([2]), vectors[5:])
    again = Features(tmp_path / "values", lengths, 4, torch.float32)
    assert torch.equal(again.read([2, 1]), torch.cat([vectors[5:], vectors[:3]]))
    assert json.dumps(again.read([0]).tolist()) == json.dumps(vectors[3:5].tolist())


def test_a_cache_that_cannot_be_written_is_left_off_and_the_run_goes_on(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NLP_FT_CACHE", str(tmp_path / "file"))
    train_as(tmp_path, tiny_encoder, "run", "head_only")
    said = f"feature cache: off, {tmp_path / 'file' / 'features'} cannot be written"
    assert said in " ".join(capsys.readouterr().out.split())

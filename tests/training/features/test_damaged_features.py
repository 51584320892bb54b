"""Features that are damaged on the disk are made anew, and the run ends as with none; the key has what they lean on."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from nlp_ft.errors import TrainingError
from nlp_ft.training import durable
from nlp_ft.training.features import store
from nlp_ft.training.features.cache import Features
from tests.training.features.test_feature_cache import train_as
from tests.training.test_run import weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """A folder with a cache, and the run that made it."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NLP_FT_CACHE", str(folder / "cache"))
        train_as(folder, tiny_encoder, "first", "head_only")
    return folder


@pytest.fixture
def cache(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NLP_FT_CACHE", str(trained / "cache"))
    return trained / "cache" / "features"


def flip(values: Path) -> None:
    content = bytearray(values.read_bytes())
    content[len(content) // 2] ^= 0x40
    values.write_bytes(content)


def put_another(values: Path) -> None:
    other = next(folder for folder in values.parent.parent.iterdir() if folder != values.parent)
    for name in ("values", "index.json"):
        (values.parent / name).write_bytes((other / name).read_bytes())


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "cut": lambda values: os.truncate(values, 64),
    "longer": lambda values: values.write_bytes(values.read_bytes() + b"more"),
    "zeros": lambda values: values.write_bytes(bytes(values.stat().st_size)),
    "one bit": flip,
    "no index": lambda values: (values.parent / "index.json").unlink(),
    "index of a list": lambda values: (values.parent / "index.json").write_text("[]"),
    "those of another split": put_another,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_features_are_made_anew_and_that_is_said(
    trained: Path, tiny_encoder: Path, cache: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    folders = {folder: durable.content_hash(folder / "values") for folder in sorted(cache.iterdir())}
    capsys.readouterr()
    folder = max(folders, key=lambda folder: (folder / "values").stat().st_size)
    DAMAGES[damage](folder / "values")
    train_as(trained, tiny_encoder, f"after {damage}", "head_only")
    out = " ".join(capsys.readouterr().out.split())
    assert out.count(f"feature cache: {folder} ") == 1
    assert out.count("so it is made anew") == 1
    assert {folder: durable.content_hash(folder / "values") for folder in sorted(cache.iterdir())} == folders
    first, second = weights(trained / "first"), weights(trained / f"after {damage}")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("override", ["training.precision=bf16", "training.eval_batch_size=7"])
def test_features_of_another_precision_or_batch_are_other_features(
    trained: Path, tiny_encoder: Path, cache: Path, override: str
) -> None:
    before = set(cache.iterdir())
    train_as(trained, tiny_encoder, override, "head_only", override, "training.feature_precision=fp32")
    assert len(set(cache.iterdir()) - before) == 2


def test_a_file_that_is_cut_while_it_is_read_ends_in_one_error_and_no_signal(tmp_path: Path) -> None:
    (tmp_path / "values").write_bytes(bytes(6 * 4 * 4))
    features = Features(tmp_path / "values", np.array([2, 3, 1]), 4, torch.float32)
    os.truncate(tmp_path / "values", 40)
    assert features.read([0]).shape == (2, 4)
    with pytest.raises(TrainingError, match=r"values became shorter while the run read it; pass --resume"):
        features.read([0, 1])


def test_without_room_for_features_the_run_goes_on_without_and_says_so(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NLP_FT_CACHE", str(tmp_path / "cache"))

    def full(self: Features, rows: np.ndarray, vectors: torch.Tensor) -> None:
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(Features, "write", full)
    run = train_as(tmp_path, tiny_encoder, "run", "head_only")
    assert "feature cache: off, the disk refuses it: Disk quota exceeded" in capsys.readouterr().out
    assert list((tmp_path / "cache" / "features").iterdir()) == []
    off = train_as(tmp_path, tiny_encoder, "off", "head_only", feature_cache="off")
    first, second = weights(run), weights(off)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_the_disk_refuses_to_one_process_is_refused_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def together(own: OSError | None) -> Iterator[None]:
        monkeypatch.setattr(store, "gather_object", lambda found: [*found, (28, "No space left on device")])
        with store._together(None):
            if own:
                raise own
            yield

    with pytest.raises(OSError, match="No space left on device"), together(None):
        pass

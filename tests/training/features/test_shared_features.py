"""Several runs and dead ones in one folder of features: who is faster, what is left behind, what cannot be removed."""

import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nlp_ft.training import durable
from nlp_ft.training.features import store

DAY = 86_400


def written(folder: Path, content: bytes = b"1234", index: bool = True) -> Path:
    """A folder of features, whole."""
    folder.mkdir(parents=True)
    (folder / "values").write_bytes(content)
    if index:
        described = {"key": folder.name, "bytes": len(content), "hash": durable.content_hash(folder / "values")}
        (folder / "index.json").write_text(json.dumps(described))
    return folder


def make_old(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def plan_of(folder: Path, budget: int = 10**9) -> Any:
    return SimpleNamespace(folder=folder, budget=budget)


def test_what_a_dead_run_left_is_tidied_though_there_is_room_and_what_a_slow_one_writes_stays(tmp_path: Path) -> None:
    dead = written(tmp_path / "a.1.partial", index=False)
    slow = written(tmp_path / "b.2.partial", index=False)
    whole = written(tmp_path / "c")
    make_old(dead / "values", 2 * DAY)
    for folder in (dead, slow, whole):
        make_old(folder, 2 * DAY)
    store._make_room(plan_of(tmp_path), [], 4)
    assert sorted(os.listdir(tmp_path)) == ["b.2.partial", "c"]


def test_features_used_longest_ago_give_way_first(tmp_path: Path) -> None:
    for name, age in (("new", 10), ("old", 30), ("older", 60)):
        folder = written(tmp_path / name)
        make_old(folder / "values", 90)
        make_old(folder, age)
    size = store.bytes_in(tmp_path / "new")
    store._make_room(plan_of(tmp_path, budget=2 * size), [], size)
    assert os.listdir(tmp_path) == ["new"]


def test_features_that_this_run_finds_count_for_the_room_too(tmp_path: Path) -> None:
    for name, age in (("found", 60), ("other", 10)):
        folder = written(tmp_path / name)
        make_old(folder / "values", 90)
        make_old(folder, age)
    size = store.bytes_in(tmp_path / "found")
    store._make_room(plan_of(tmp_path, budget=2 * size), [tmp_path / "found", tmp_path / "new"], 0)
    assert sorted(os.listdir(tmp_path)) == ["found", "other"]
    store._make_room(plan_of(tmp_path, budget=2 * size), [tmp_path / "found", tmp_path / "new"], size)
    assert os.listdir(tmp_path) == ["found"]


def test_features_that_another_run_finished_first_are_taken_if_they_are_whole(tmp_path: Path) -> None:
    mine, theirs = written(tmp_path / "k.1.partial", index=False), written(tmp_path / "k")
    store._put_in_place(mine, theirs)
    assert os.listdir(tmp_path) == ["k"]
    (theirs / "values").write_bytes(b"1x34")
    with pytest.raises(OSError, match="not empty"):
        store._put_in_place(written(tmp_path / "k.1.partial", index=False), theirs)


def test_damaged_features_that_cannot_be_removed_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path / "k")
    monkeypatch.setattr(store, "_size", lambda plan, boundary, split: 4)
    assert store._missing(plan_of(tmp_path), {(1, "train"): folder}) == []
    (folder / "values").write_bytes(b"1x34")

    def refused(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refused)
    with pytest.raises(PermissionError):
        store._missing(plan_of(tmp_path), {(1, "train"): folder})


def test_what_another_run_removes_while_it_is_counted_has_no_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "k", b"12345678", index=False)
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: iter([self / "k" / "values", self / "k" / "gone"]))
    assert store.bytes_in(tmp_path) == 8

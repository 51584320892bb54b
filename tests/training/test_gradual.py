"""Gradual unfreezing in whole runs: exact on one process or two, across kills, with the rates of the closed form."""

import json
import math
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nlp_ft.errors import Interrupted, TrainingError
from nlp_ft.recipe.loader import dump_yaml, load_recipe
from nlp_ft.tasks.outputs import Predictions
from nlp_ft.training.agreement import weights_hash
from nlp_ft.training.checkpoint_manager import CheckpointManager
from nlp_ft.training.inspection import find_problems
from nlp_ft.training.loop import Loop
from nlp_ft.training.run import train
from tests.tiny import tiny_recipe
from tests.training.test_run import weights
from tests.training.watched import in_a_process, in_two_processes, watched_steps, watched_train

STEPS_PER_EPOCH = 7
"""50 rows in effective batches of 8."""
LAYERS = {"embeddings": 0, "block 1": 1, "block 2": 2, "head": 3}
HEAD_DOWN = [{"head"}, {"head", "block 2"}, {"head", "block 2", "block 1"}, set(LAYERS)]
STRATEGIES: dict[str, Any] = {
    "every": {"name": "gradual", "unfreeze": {"every": "3st"}},
    "plateau": {
        "name": "gradual",
        "unfreeze": {"plateau": {"metric": "loss", "min_delta": 0.3, "at_most": "1ep"}, "restore_best": True},
    },
    "loss_below": {
        "name": "lp_ft",
        "unfreeze": {"loss_below": {"value": 1.065, "at_least": "4st"}, "lr_scales": [1, 0.5]},
    },
}


def write_recipe(folder: Path, encoder: Path, name: str, strategy: Any, **training: Any) -> Path:
    values = tiny_recipe(
        folder,
        encoder,
        model={"dropout": training.pop("dropout", 0.1), "head": {"dropout": training.pop("head_dropout", 0.1)}},
        strategy=strategy,
        schedule=training.pop("schedule", {"name": "linear", "warmup": "0st"}),
        training={"duration": "2ep", "keep": "last", "checkpoint_every": "4st", "evaluate_every": "2st", **training},
        output_dir=str(folder / name),
    )
    file = folder / f"{name}.yaml"
    file.write_text(dump_yaml(values))
    return file


def trained_layers(line: dict[str, Any]) -> set[str]:
    return {layer_of(name) for name in line["trainable"]}


def layer_of(parameter: str) -> str:
    if ".layer." in parameter:
        return f"block {int(parameter.split('.layer.')[1].split('.')[0]) + 1}"
    return "embeddings" if ".embeddings." in parameter else "head"


def test_a_phase_moves_its_layers_and_no_bit_of_the_others(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_recipe(tmp_path, tiny_encoder, "run", STRATEGIES["every"], duration="12st")
    plain_step, moved = Loop._step, []

    def step(self: Loop, batches: Any) -> torch.Tensor:
        before = {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}
        total = plain_step(self, batches)
        moved.append({layer_of(n) for n, p in self.model.named_parameters() if not torch.equal(p, before[n])})
        return total

    monkeypatch.setattr(Loop, "_step", step)
    train(load_recipe(file))
    assert moved == [layers for layers in HEAD_DOWN for _ in range(3)]


def test_the_phases_are_shown_before_training(
    tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(load_recipe(write_recipe(tmp_path, tiny_encoder, "run", STRATEGIES["every"], duration="12st")))
    shown = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "3 6 head, blocks 1-2 9.0e-4 to 1.0e-2 4,499 34.5%" in lines
    assert "block 1 ..............................##############################" in lines
    assert "step 6 phase 3/4: head, blocks 1-2 train" in lines


def same_files(first: Path, second: Path) -> bool:
    return first.read_bytes() == second.read_bytes()


def assert_equal_to_the_bit(broken: Path, whole: Path) -> None:
    """Weights, optimizer state, the state of the loop, rates and weights of every step, metrics history."""
    assert watched_steps(broken) == watched_steps(whole)
    assert same_files(broken / "model.safetensors", whole / "model.safetensors")
    assert same_files(broken / "metrics.jsonl", whole / "metrics.jsonl")
    [last], [expected] = (list(Path(f"{folder}.checkpoints").glob("step-*")) for folder in (broken, whole))
    assert last.name == expected.name
    assert same_files(last / "optimizer.safetensors", expected / "optimizer.safetensors")
    states = [json.loads((checkpoint / "state.json").read_text()) for checkpoint in (last, expected)]
    for state in states:
        del state["loop"]["train_seconds"], state["run_id"]
    assert states[0] == states[1]


def kills(borders: list[int], total: int, count: int) -> list[int]:
    """The borders of the phases, the steps beside them, and others evenly, in order."""
    chosen = {step for border in borders for step in (border - 1, border, border + 1) if 0 <= step < total}
    others = [step for step in range(total) if step not in chosen]
    missing = count - len(chosen)
    return sorted(chosen | {others[i * len(others) // missing] for i in range(missing)})


def borders(steps: list[dict[str, Any]]) -> list[int]:
    return [b["step"] for a, b in pairwise(steps) if a["trainable"] != b["trainable"]]


@pytest.mark.parametrize(
    "trigger", [name if name == "plateau" else pytest.param(name, marks=pytest.mark.slow) for name in STRATEGIES]
)
def test_a_run_killed_again_and_again_ends_as_the_unbroken_one(
    tmp_path: Path, tiny_encoder: Path, trigger: str
) -> None:
    whole, broken = (write_recipe(tmp_path, tiny_encoder, n, STRATEGIES[trigger]) for n in ("whole", "broken"))
    watched_train(str(whole))
    steps = watched_steps(tmp_path / "whole")
    assert borders(steps), "the run has one phase only"
    for step in borders(steps)[:2]:
        assert in_a_process(broken, step) == -9
    assert in_a_process(broken, 10**9) == 0
    assert_equal_to_the_bit(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("trigger", STRATEGIES)
def test_a_run_killed_at_thirty_steps_ends_as_the_unbroken_one(
    tmp_path: Path, tiny_encoder: Path, trigger: str
) -> None:
    files = [write_recipe(tmp_path, tiny_encoder, n, STRATEGIES[trigger], duration="6ep") for n in ("whole", "broken")]
    watched_train(str(files[0]))
    steps = watched_steps(tmp_path / "whole")
    for step in kills(borders(steps), len(steps), 30):
        assert in_a_process(files[1], step) == -9
    assert in_a_process(files[1], 10**9) == 0
    assert_equal_to_the_bit(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("trigger", ["every", "plateau"])
def test_two_processes_killed_at_ten_steps_end_as_the_unbroken_ones(
    tmp_path: Path, tiny_encoder: Path, trigger: str
) -> None:
    settings = {"duration": "3ep", "per_device_batch_size": 4}
    files = [write_recipe(tmp_path, tiny_encoder, n, STRATEGIES[trigger], **settings) for n in ("whole", "broken")]
    assert in_two_processes({files[0]: {}}).returncode == 0
    steps = watched_steps(tmp_path / "whole")
    for step in kills(borders(steps), len(steps), 10):
        assert in_two_processes({files[1]: {"kill_at": step}}).returncode != 0
    assert in_two_processes({files[1]: {}}).returncode == 0
    assert_equal_to_the_bit(tmp_path / "broken", tmp_path / "whole")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """Four phases of three steps: on one process, and on two: plain, with two micro-batches, as is usually done."""
    folder = tmp_path_factory.mktemp("two")
    settings: dict[str, Any] = {"duration": "12st", "dropout": 0.0, "head_dropout": 0.0}
    runs: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "plain": ({"per_device_batch_size": 4}, {}),
        "accumulated": ({"per_device_batch_size": 2, "gradient_accumulation_steps": 2}, {}),
        "old_wrapper": ({"per_device_batch_size": 4}, {"keep_wrapper": True}),
    }
    files = {
        write_recipe(folder, tiny_encoder, name, STRATEGIES["every"], **settings, **batch): options
        for name, (batch, options) in runs.items()
    }
    (folder / "stderr").write_text(in_two_processes(files).stderr)
    watched_train(str(write_recipe(folder, tiny_encoder, "one", STRATEGIES["every"], **settings)))
    return folder


@pytest.mark.parametrize("name", ["plain", "accumulated"])
def test_two_processes_hold_equal_weights_after_every_step_of_every_phase(two_processes: Path, name: str) -> None:
    first, second = (watched_steps(two_processes / name, rank) for rank in (0, 1))
    assert first == second
    assert [trained_layers(line) for line in first] == [layers for layers in HEAD_DOWN for _ in range(3)]
    assert len({line["hash"] for line in first}) == 12


@pytest.mark.parametrize("name", ["plain", "accumulated"])
def test_two_processes_end_with_the_weights_of_one(two_processes: Path, name: str) -> None:
    one, two = weights(two_processes / "one"), weights(two_processes / name)
    for parameter, tensor in one.items():
        torch.testing.assert_close(two[parameter], tensor, rtol=0, atol=1e-5, msg=parameter)


def test_with_a_wrapper_that_is_older_than_the_phase_the_processes_drift_apart_and_the_run_says_so(
    two_processes: Path,
) -> None:
    first, second = (watched_steps(two_processes / "old_wrapper", rank) for rank in (0, 1))
    equal = [a["hash"] == b["hash"] for a, b in zip(first, second, strict=True)]
    assert equal == [True, True, True, False]
    assert "the 2 processes no longer hold the same weights" in (two_processes / "stderr").read_text()


SCHEDULES: dict[str, tuple[dict[str, Any], Callable[[int, int], float]]] = {
    "linear": ({"name": "linear", "warmup": "0st"}, lambda t, n: 1 - t / n),
    "linear, warmed up": ({"name": "linear", "warmup": "3st"}, lambda t, n: t / 3 if t < 3 else (n - t) / (n - 3)),
    "cosine": ({"name": "cosine", "warmup": "0st"}, lambda t, n: (1 + math.cos(math.pi * t / n)) / 2),
    "constant": ({"name": "constant", "warmup": "0st"}, lambda t, n: 1.0),
    "constant, warmed up": ({"name": "constant", "warmup": "3st"}, lambda t, n: min(1, t / 3)),
    "slanted_triangular": (
        {"name": "slanted_triangular", "warmup": "2st"},
        lambda t, n: (1 + (t / 2 if t < 2 else (n - t) / (n - 2)) * 31) / 32,
    ),
}
RATES: dict[str, tuple[Any, dict[str, float], Callable[[int, str], float]]] = {
    "llrd": ("llrd", {"head": 0.01, "block 2": 1e-3, "block 1": 9e-4, "embeddings": 8.1e-4}, lambda t, layer: 1.0),
    "head_only": (
        "head_only",
        {"head": 0.01, "block 2": 0, "block 1": 0, "embeddings": 0},
        lambda t, layer: 1.0,
    ),
    "gradual": (
        {"name": "gradual", "unfreeze": {"every": "3st", "layer_warmup": "2st"}},
        {"head": 0.01, "block 2": 1e-3, "block 1": 9e-4, "embeddings": 8.1e-4},
        lambda t, layer: 1.0 if layer == "head" else max(0.0, min(1.0, (t - 3 * (3 - LAYERS[layer]) + 1) / 3)),
    ),
    "lp_ft": (
        {"name": "lp_ft", "unfreeze": {"every": "6st", "restart_lr": False, "lr_scales": [1, 0.5]}},
        {"head": 0.01, "block 2": 1e-3, "block 1": 1e-3, "embeddings": 1e-3},
        lambda t, layer: 0.5 if t >= 6 else float(layer == "head"),
    ),
}


def write_rates(folder: Path, encoder: Path, accumulation: int, processes: int) -> dict[tuple[str, str], Path]:
    """A recipe of 12 steps for each schedule and strategy."""
    settings: dict[str, Any] = {
        "duration": "12st",
        "gradient_accumulation_steps": accumulation,
        "per_device_batch_size": 8 // processes // accumulation,
        "evaluate_every": "12st",
        "checkpoint_every": "12st",
    }
    return {
        (strategy, schedule): write_recipe(
            folder, encoder, f"{strategy}-{schedule}", RATES[strategy][0], schedule=SCHEDULES[schedule][0], **settings
        )
        for strategy in RATES
        for schedule in SCHEDULES
    }


def assert_closed_form(folder: Path, strategy: str, schedule: str) -> None:
    _, rates, factor = RATES[strategy]
    for line in watched_steps(folder):
        for name, rate in line["rates"].items():
            layer = name.split(",")[0]
            expected = rates[layer] * SCHEDULES[schedule][1](line["step"], 12) * factor(line["step"], layer)
            assert rate == pytest.approx(expected, rel=1e-12, abs=1e-15), (strategy, schedule, line["step"], name)


@pytest.mark.parametrize(
    ("strategy", "schedule"),
    [("llrd", "cosine"), ("head_only", "linear, warmed up"), ("gradual", "slanted_triangular"), ("lp_ft", "linear")],
)
def test_the_rates_of_every_step_are_those_of_the_closed_form(
    tmp_path: Path, tiny_encoder: Path, strategy: str, schedule: str
) -> None:
    watched_train(str(write_rates(tmp_path, tiny_encoder, 1, 1)[strategy, schedule]))
    assert_closed_form(tmp_path / f"{strategy}-{schedule}", strategy, schedule)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_the_rates_of_all_schedules_and_strategies_are_those_of_the_closed_form(
    tmp_path: Path, tiny_encoder: Path, processes: int, accumulation: int
) -> None:
    files = write_rates(tmp_path, tiny_encoder, accumulation, processes)
    if processes == 2:
        result = in_two_processes({file: {} for file in files.values()})
        assert result.returncode == 0, result.stderr[-3000:]
    for (strategy, schedule), file in files.items():
        if processes == 1:
            watched_train(str(file))
        assert_closed_form(tmp_path / f"{strategy}-{schedule}", strategy, schedule)


def test_patience_ends_the_run_in_the_last_phase_and_counts_anew_in_each(tmp_path: Path, tiny_encoder: Path) -> None:
    strategy = {"name": "gradual", "unfreeze": {"every": "4st"}}
    stopping = {"patience": 2, "min_delta": 10.0}  # nothing is ever better than the first value of a phase
    file = write_recipe(
        tmp_path, tiny_encoder, "run", strategy, duration="4ep", evaluate_every="1st", early_stopping=stopping
    )
    summary = train(load_recipe(file))
    # Phase 4 begins at step 12; its first evaluation, after step 13, is its best, and two without a better one follow.
    assert (summary["stopped_early"], summary["global_step"]) == (True, 15)


@pytest.mark.parametrize(
    "unfreeze", [{"plateau": {"metric": "loss", "patience": 2, "min_delta": 10.0}}, {"loss_below": {"value": 9.0}}]
)
def test_the_evaluation_that_begins_the_last_phase_does_not_end_the_run(
    tmp_path: Path, tiny_encoder: Path, unfreeze: dict[str, Any]
) -> None:
    """The patience that ends the head's phase is used up in the same evaluation, and is not that of the next phase."""
    if "loss_below" in unfreeze:
        unfreeze["loss_below"]["at_least"] = "5st"
    stopping = {"patience": 2, "min_delta": 10.0}
    settings: dict[str, Any] = {"duration": "4ep", "evaluate_every": "2st", "early_stopping": stopping}
    file = write_recipe(tmp_path, tiny_encoder, "run", {"name": "lp_ft", "unfreeze": unfreeze}, **settings)
    watched_train(str(file))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    steps = watched_steps(tmp_path / "run")
    # The head trains for 6 steps: the first evaluation is its best, two without a better one follow.
    assert [trained_layers(line) for line in steps] == [{"head"}] * 6 + [set(LAYERS)] * 6
    assert (summary["stopped_early"], summary["global_step"]) == (True, 12)


@pytest.mark.parametrize(("below", "said"), [(1e-9, True), (9.0, False)])
def test_layers_of_phases_that_never_began_are_named_at_the_end(
    below: float, said: bool, tmp_path: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strategy = {"name": "lp_ft", "unfreeze": {"loss_below": {"value": below}}}
    train(load_recipe(write_recipe(tmp_path, tiny_encoder, "run", strategy, duration="4st", evaluate_every="2st")))
    message = "warning: the run ended in phase 1 of 2, so these never trained: blocks 1-2, embeddings"
    assert (message in " ".join(capsys.readouterr().out.split())) == said


def test_a_run_that_is_stopped_after_its_last_step_ends_in_the_phase_that_it_trained_in(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plateau is reached in the evaluation after the last step, when no update is left for another phase."""
    strategy = {"name": "lp_ft", "unfreeze": {"plateau": {"min_delta": 10.0, "at_most": "4st"}}}
    load_kept = CheckpointManager.load_kept
    summaries = []
    for name in ("whole", "broken"):
        file = write_recipe(tmp_path, tiny_encoder, name, strategy, duration="4st", evaluate_every="2st")
        if name == "broken":
            monkeypatch.setattr(CheckpointManager, "load_kept", lambda *_: signal.raise_signal(signal.SIGTERM))
            with pytest.raises(Interrupted):
                train(load_recipe(file))
            monkeypatch.setattr(CheckpointManager, "load_kept", load_kept)
        summaries.append(train(load_recipe(file), resume=True))
    whole, broken = ((one["phases"], one["num_trainable_parameters"]) for one in summaries)
    assert broken == whole
    assert [phase["step"] for phase in whole[0]] == [0]


def test_the_last_weights_are_kept_where_every_score_is_nan(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Predictions, "scores", lambda self: {"loss": 1.0, "accuracy": math.nan})
    summary = train(load_recipe(write_recipe(tmp_path, tiny_encoder, "run", "head_only", duration="4st", keep="best")))
    assert summary["global_step"] == 4
    assert "warning: accuracy was NaN at each evaluation; the last weights are kept" in capsys.readouterr().out


def test_a_phase_begins_with_the_best_weights_of_the_one_before(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = {"name": "gradual", "unfreeze": {"every": "4st", "restore_best": True}}
    file = write_recipe(tmp_path, tiny_encoder, "run", strategy, duration="16st", metric="loss", evaluate_every="1st")
    plain, restored = Loop._begin_phase, []

    def begin_phase(self: Loop) -> None:
        best = self.state.best_step_of_phase
        plain(self)
        restored.append((best, weights_hash(self.model)))

    monkeypatch.setattr(Loop, "_begin_phase", begin_phase)
    watched_train(str(file))
    hashes = {line["step"] + 1: line["hash"] for line in watched_steps(tmp_path / "run")}
    scores = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["validation"]["loss"] for line in scores if "validation" in line}
    best = [min(range(first + 1, first + 5), key=losses.__getitem__) for first in (0, 4, 8)]
    assert restored == [(step, hashes[step]) for step in best]


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ({"name": "gradual", "unfreeze": {"every": "1ep"}},
         "strategy.unfreeze: phase 3 (head, blocks 1-2) would begin at step 14, but the run ends at step 14; make the "
         "run longer, the phases shorter or fewer, or let layers stay frozen"),
        ({"name": "gradual", "unfreeze": {"layers": "head: 0ep, 1-3: 1ep, embeddings: never"}},
         "strategy.unfreeze: '1-3: 1ep' must be layers and a time, such as head: 0ep, 10-12: 1ep, 9: 30% or "
         "embeddings: never (blocks 1 to 2)"),
        ({"name": "lp_ft", "unfreeze": {"lr_scales": [1, 0.5, 0.5]}},
         "strategy.unfreeze: lr_scales must hold 2 factors, one a phase, got [1.0, 0.5, 0.5]"),
        ({"name": "top_layers", "trainable_blocks": 3},
         "strategy.trainable_blocks must be at most 2, the blocks of this model, or all; got 3"),
        ({"name": "lp_ft", "unfreeze": {"plateau": {"patience": 7}}},
         "strategy.unfreeze: phase 2 (head, blocks 1-2, embeddings) waits for loss on a plateau for 7 evaluation(s), "
         "which takes 8 evaluation(s), but the run of 14 steps has 6 before its end, so that it would never begin; "
         "make training.evaluate_every shorter or the run longer, or set at_most"),
        ({"name": "llrd", "reinit_top": 3}, "strategy.reinit_top must be at most 2, the blocks of this model, got 3"),
        ({"name": "head_only", "reinit_top": 1},
         "strategy.reinit_top 1 gives random weights to block(s) 2, which never train under this strategy; lower it, "
         "or train them"),
        ({"name": "top_layers", "trainable_blocks": 1, "reinit_top": 2},
         "strategy.reinit_top 2 gives random weights to block(s) 1, which never train under this strategy; lower it, "
         "or train them"),
    ],
)  # fmt: skip
def test_phases_that_do_not_fit_are_refused_before_training(
    tmp_path: Path, tiny_encoder: Path, strategy: dict[str, Any], message: str
) -> None:
    recipe = load_recipe(write_recipe(tmp_path, tiny_encoder, "run", strategy))
    assert find_problems(recipe) == [message]
    with pytest.raises(TrainingError) as caught:
        train(recipe)
    assert str(caught.value) == message
    assert not (tmp_path / "run.partial").exists()


@pytest.mark.parametrize("strategy", ["scratch", {"name": "llrd", "reinit_top": 1}])
def test_what_begins_at_random_is_not_the_pretrained_one(tmp_path: Path, tiny_encoder: Path, strategy: Any) -> None:
    """A rate of almost nothing leaves the weights as they began."""
    file = write_recipe(tmp_path, tiny_encoder, "run", strategy, duration="1st")
    train(load_recipe(file, ["optimizer.lr=1e-30", "optimizer.head_lr=1e-30"]))
    pretrained = load_file(tiny_encoder / "model.safetensors")
    after = {name.removeprefix("encoder."): tensor for name, tensor in weights(tmp_path / "run").items()}
    matrices = [name for name, tensor in pretrained.items() if tensor.ndim == 2 and name in after]
    kept = {layer_of(f".{name}") for name in matrices if torch.equal(after[name], pretrained[name])}
    assert kept == (set() if strategy == "scratch" else {"embeddings", "block 1"})


def test_a_launch_that_divides_the_optimizer_is_refused_with_the_reason(
    tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(TrainingError, match=r"asks for DEEPSPEED, .*would never update"):
        train(load_recipe(write_recipe(tmp_path, tiny_encoder, "run", STRATEGIES["every"])))
    assert not (tmp_path / "run.partial").exists()


@pytest.mark.slow
def test_compiled_phases_end_with_the_weights_of_the_plain_ones(tmp_path: Path, tiny_encoder: Path) -> None:
    settings: dict[str, Any] = {"duration": "12st", "dropout": 0.0, "head_dropout": 0.0, "per_device_batch_size": 4}
    files = [write_recipe(tmp_path, tiny_encoder, n, STRATEGIES["every"], **settings) for n in ("plain", "compiled")]
    for file in files:
        backend = "aot_eager" if file.stem == "compiled" else "no"
        result = in_two_processes({file: {"dynamo_backend": backend}})
        assert result.returncode == 0, result.stderr[-3000:]
    assert [line["hash"] for line in watched_steps(tmp_path / "compiled")] == [
        line["hash"] for line in watched_steps(tmp_path / "compiled", rank=1)
    ]
    plain, compiled = weights(tmp_path / "plain"), weights(tmp_path / "compiled")
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=0, atol=1e-5, msg=name)

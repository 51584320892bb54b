"""Runs whose model two real processes share by FSDP2 (gloo, CPU), against one process with the same batches."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed, nn
from torch.distributed.tensor import DTensor
from transformers import AutoModelForSequenceClassification

from nlp_ft.errors import RunFolderError, TrainingError
from nlp_ft.layerwise import LayerMap, build_optimizer, set_trainable
from nlp_ft.recipe.loader import dump_yaml, load_recipe
from nlp_ft.training import sharding
from nlp_ft.training.accelerator import check_sharding
from nlp_ft.training.run import train
from nlp_ft.training.sharding import _blocks, placed, unshard
from nlp_ft.training.whole_tensors import copy_whole, whole
from tests.layerwise import text_census
from tests.layerwise.families import build
from tests.tiny import tiny_recipe
from tests.tiny_decoders import save_tiny_decoder
from tests.training.test_processes import ROOT
from tests.training.test_run import same, weights

GRADUAL = {"name": "gradual", "unfreeze": {"every": "3st"}}
LORA = {"name": "lora", "lora": {"rank": 2}}
SIZE = 8
"""Rows of an effective batch."""


def recipe_of(
    folder: Path, encoder: Path, name: str, processes: int, strategy: Any, report: bool = True, **training: Any
) -> Path:
    """A recipe whose effective batches have 8 rows on this number of processes, without dropout."""
    given = {"duration": "12st", "checkpoint_every": "4st", "evaluate_every": "3st", "eval_batch_size": 2}
    values = tiny_recipe(
        folder,
        encoder,
        model={"pooling": "auto", "dropout": training.pop("dropout", 0.0), "head": {"dropout": 0.0}},
        strategy=strategy,
        training={**given, "per_device_batch_size": SIZE // processes, "keep": "last", **training},
        output_dir=str(folder / name),
        report=report,
    )
    file = folder / f"{name}.yaml"
    file.write_text(dump_yaml(values))
    return file


def launch(calls: Sequence[Sequence[str]], *options: str) -> subprocess.CompletedProcess[str]:
    """Two processes by `accelerate launch`, as the docs tell it, for one call of the script after the other."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--use_fsdp", "--fsdp_version", "2"]
    common = ["--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no", "--main_process_port", "0"]
    program = ["tests/training/launched.py", json.dumps(calls)]
    command = [*launcher, *common, *options, *program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


def assert_equals_one_process(shared: Path, alone: Path) -> None:
    """Weights, scores, what the recorder saw, and the files that there are."""
    one, other = weights(alone), weights(shared)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=0, atol=1e-5, msg=name)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (alone, shared)]
    assert [(summary["num_processes"], summary["weights_hashes"]) for summary in summaries] == [(1, []), (2, [])]
    for key in ("num_parameters", "num_trainable_parameters", "effective_batch_size", "phases"):
        assert summaries[0][key] == summaries[1][key], key
    losses = [summary["metrics"]["test"]["loss"] for summary in summaries]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert {file.name for file in shared.iterdir()} == {file.name for file in alone.iterdir()}
    assert (shared / "config.json").read_text() == (alone / "config.json").read_text()
    if (alone / "layers.jsonl").exists():
        layers = [(folder / "layers.jsonl").read_text().splitlines() for folder in (alone, shared)]
        for expected, found in zip(*(map(json.loads, lines) for lines in layers), strict=True):
            for key in ("gradient_norm", "drift"):
                assert found[key] == pytest.approx(expected[key], rel=1e-3), key


def test_gradual_unfreezing_over_four_phases_ends_as_on_one_process(tmp_path: Path, tiny_encoder: Path) -> None:
    two = recipe_of(tmp_path, tiny_encoder, "two", 2, GRADUAL, False, max_grad_norm=0.5)
    result = launch([[str(two)]])
    assert (tmp_path / "two").exists(), result.stderr[-3000:]
    assert "FSDP: 2 processes share weights" in result.stdout
    assert "feature cache: off, the processes share the model" in result.stdout
    train(load_recipe(str(recipe_of(tmp_path, tiny_encoder, "one", 1, GRADUAL, False, max_grad_norm=0.5))))
    assert_equals_one_process(tmp_path / "two", tmp_path / "one")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "two")
    assert type(loaded).__name__ == "BertForSequenceClassification"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fsdp")


STRATEGIES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "full": ("bert", "full", {}),
    "accumulated": ("bert", GRADUAL, {"gradient_accumulation_steps": 2}),
    "restored": ("bert", {"name": "gradual", "unfreeze": {"plateau": {"metric": "loss"}, "restore_best": True}}, {}),
    "best": ("bert", "llrd", {"keep": "best", "calibration": "temperature"}),
    "top": ("bert", {"name": "top_layers", "trainable_blocks": 1}, {}),
    "lora": ("llama", LORA, {}),
    "decoder": ("llama", GRADUAL, {"duration": "18st"}),
    "stopped": ("bert", GRADUAL, {}),
}
"""Name of a run -> network, strategy, and settings of the training."""


@pytest.fixture(scope="module")
def networks(folder: Path, tiny_encoder: Path) -> dict[str, Path]:
    return {"bert": tiny_encoder, "llama": save_tiny_decoder(folder / "llama", "llama")}


@pytest.fixture(scope="module")
def launched(folder: Path, networks: dict[str, Path]) -> subprocess.CompletedProcess[str]:
    """Trains each run; stops and resumes one; stops two more, one of which has dropout."""
    files = {
        name: str(recipe_of(folder, networks[kind], name, 2, strategy, **settings))
        for name, (kind, strategy, settings) in STRATEGIES.items()
    }
    whole = [f"output_dir={folder / 'unbroken'}"]
    random = [files["stopped"], "model.dropout=0.1", f"output_dir={folder / 'random'}", "SIGTERM"]
    on_one = [files["stopped"], f"output_dir={folder / 'on_one'}", "SIGTERM"]
    stopped = files.pop("stopped")
    return launch(
        [
            *([file] for file in files.values()),
            [stopped, *whole],
            [stopped, "SIGTERM"],
            [stopped, "--resume"],
            random,
            on_one,
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "stopped"])
def test_every_strategy_ends_as_on_one_process(
    folder: Path, networks: dict[str, Path], launched: subprocess.CompletedProcess[str], name: str
) -> None:
    assert (folder / name).exists(), launched.stderr[-3000:]
    kind, strategy, settings = STRATEGIES[name]
    train(load_recipe(str(recipe_of(folder, networks[kind], f"{name}-one", 1, strategy, **settings))))
    assert_equals_one_process(folder / name, folder / f"{name}-one")


@pytest.mark.slow
def test_frozen_layers_keep_every_bit(
    folder: Path, networks: dict[str, Path], launched: subprocess.CompletedProcess[str]
) -> None:
    before, after = load_file(networks["bert"] / "model.safetensors"), weights(folder / "top")
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[f"bert.{name}"])}
    assert {name.partition(".layer.")[2][:1] for name in moved if ".layer." in name} == {"1"}
    assert not [name for name in moved if name.startswith("embeddings.")]
    before, after = load_file(networks["llama"] / "model.safetensors"), weights(folder / "lora")
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[f"model.{name}"])}
    assert {name.split(".")[-2] for name in moved} == {"q_proj", "v_proj"}


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_bit(folder: Path, launched: subprocess.CompletedProcess[str]) -> None:
    assert sorted(set(re.findall("process . stopped with .*", launched.stdout))) == [
        "process 0 stopped with 143",
        "process 1 stopped with 143",
    ]
    assert same(weights(folder / "stopped"), weights(folder / "unbroken"))
    assert (folder / "stopped/metrics.jsonl").read_text() == (folder / "unbroken/metrics.jsonl").read_text()


@pytest.mark.slow
def test_one_process_goes_on_where_two_were_stopped_with_the_same_steps(
    folder: Path, launched: subprocess.CompletedProcess[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file, place = str(folder / "stopped.yaml"), f"output_dir={folder / 'on_one'}"
    message = r"different: micro-batches of an effective batch, over all processes \(2 then, 1 now\)"
    with pytest.raises(RunFolderError, match=message):
        train(load_recipe(file, [place]), resume=True)
    train(load_recipe(file, [place, "training.gradient_accumulation_steps=2"]), resume=True)
    assert "begun on 2 process(es) and goes on with 1" in " ".join(capsys.readouterr().out.split())
    for name, tensor in weights(folder / "unbroken").items():
        torch.testing.assert_close(weights(folder / "on_one")[name], tensor, rtol=0, atol=1e-5, msg=name)


@pytest.mark.slow
def test_a_run_with_dropout_does_not_go_on_on_another_number_of_processes(
    folder: Path, launched: subprocess.CompletedProcess[str]
) -> None:
    changes = ["model.dropout=0.1", f"output_dir={folder / 'random'}", "training.gradient_accumulation_steps=2"]
    with pytest.raises(RunFolderError, match=r"begun on 2 process.* would differ on 1: .* random numbers \(dropout\)"):
        train(load_recipe(str(folder / "stopped.yaml"), changes), resume=True)


REFUSALS: list[tuple[dict[str, str], list[str], str]] = [
    ({"FSDP_VERSION": "1"}, [], "add --fsdp_version 2"),
    ({"FSDP_OFFLOAD_PARAMS": "true"}, [], "--fsdp_offload_params is not supported"),
    ({"FSDP_ACTIVATION_CHECKPOINTING": "True"}, [], "--fsdp_activation_checkpointing would rename"),
    ({"FSDP_RESHARD_AFTER_FORWARD": "false"}, [], "--fsdp_reshard_after_forward must be true"),
    ({"FSDP_IGNORED_MODULES": "head"}, [], "--fsdp_ignored_modules is not supported"),
    ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, [], "--use_parallelism_config is not supported"),
    ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, [], "--dynamo_backend must be no"),
    ({}, ["training.precision=fp16"], "training.precision fp16"),
    ({}, ["optimizer.name=adafactor"], "optimizer.name adafactor"),
    ({}, ["strategy=probe"], "strategy probe takes no steps"),
]


@pytest.mark.parametrize(("variables", "changes", "reason"), REFUSALS)
def test_what_a_sharded_model_cannot_follow_is_refused_before_anything_is_loaded(
    tmp_path: Path,
    tiny_encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    changes: list[str],
    reason: str,
) -> None:
    for name, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", **variables}.items():
        monkeypatch.setenv(name, value)
    recipe = load_recipe(str(recipe_of(tmp_path, tiny_encoder, "run", 1, "full")), changes)
    with pytest.raises(TrainingError, match=f"asks for FSDP, which this run cannot use so: .*{re.escape(reason)}"):
        train(recipe)
    assert not (tmp_path / "run.partial").exists()


def test_a_search_for_rates_is_not_sharded(tmp_path: Path, tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    recipe = load_recipe(str(recipe_of(tmp_path, tiny_encoder, "run", 1, "full")))
    with pytest.raises(TrainingError, match="only `train` can use it"):
        check_sharding(recipe, may_shard=False)


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """One process that shares models with nobody."""
    distributed.init_process_group("gloo", rank=0, world_size=1, store=distributed.HashStore())
    monkeypatch.setattr(sharding, "is_wanted", lambda: True)
    alone = {"num_processes": 1, "is_main_process": True, "mixed_precision": "no", "autocast": nullcontext}
    yield SimpleNamespace(device=torch.device("cpu"), **alone)
    distributed.destroy_process_group()


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_model_is_in_parts_and_then_whole_again_with_its_flags_its_name_and_its_ties(
    kind: str, accelerator: Any
) -> None:
    model = text_census.build(kind)
    layer_map, name = LayerMap.from_model(model), type(model).__name__
    set_trainable(model, layer_map, 2)
    before = {name: (tensor.detach().clone(), tensor.requires_grad) for name, tensor in model.named_parameters()}
    placed(model, layer_map, text_census.batch(model), accelerator)
    assert all(isinstance(parameter, DTensor) for parameter in layer_map.parameters(1).values())
    copy_whole(next(model.parameters()), torch.ones_like(next(iter(before.values()))[0]))
    assert not build_optimizer(model, layer_map=layer_map, optimizer_class=torch.optim.SGD).defaults["fused"]
    unshard(model, layer_map, accelerator)
    after = dict(model.named_parameters())
    assert {name: parameter.requires_grad for name, parameter in after.items()} == {
        name: flag for name, (_, flag) in before.items()
    }
    changed = {name for name, parameter in after.items() if not torch.equal(parameter, before[name][0])}
    assert changed == {next(iter(before))}
    assert {id(parameter) for parameter in layer_map.parameters(1).values()} <= {id(one) for one in after.values()}
    assert type(model).__name__ == name
    assert all(type(parameter) is nn.Parameter for parameter in after.values())


ALL_TYPES = sorted({*text_census.MODEL_TYPES} - {*text_census.CANNOT_BE_BUILT, "reformer", "squeezebert"})
"""Reformer takes no backward pass in eval mode, and so is in no run; SqueezeBERT cannot be sharded."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL_TYPES)
def test_a_sharded_model_has_the_logits_and_the_gradients_of_a_whole_one(kind: str, accelerator: Any) -> None:
    model: Any = text_census.build(kind, drop_rate=0.0)
    layer_map, inputs = LayerMap.from_model(model), text_census.batch(model)
    passes = []
    for is_sharded in (False, True):
        if is_sharded:
            placed(model, layer_map, inputs, accelerator)
        torch.manual_seed(0)
        logits = model.train()(**inputs).logits
        logits.sum().backward()
        gradients = {n: whole(one.grad) for n, one in model.named_parameters() if one.grad is not None}
        passes.append({"logits": logits.detach(), **gradients})
        model.zero_grad()
    assert passes[0].keys() == passes[1].keys()
    largest = max(float(tensor.abs().max()) for tensor in passes[0].values())
    for name, tensor in passes[0].items():
        torch.testing.assert_close(passes[1][name], tensor, rtol=0, atol=1e-5 * max(1.0, largest), msg=name)


@pytest.mark.parametrize(("kind", "message"), [("squeezebert", "outside of the block"), ("norm", "running statistics")])
def test_a_model_that_cannot_be_sharded_is_refused_with_the_reason(kind: str, message: str, accelerator: Any) -> None:
    model: Any = text_census.build("bert" if kind == "norm" else kind)
    layer_map = LayerMap.from_model(model)
    if kind == "norm":
        model.norm = nn.BatchNorm1d(4)
    with pytest.raises(TrainingError, match=message):
        placed(model, layer_map, text_census.batch(model), accelerator)


def test_the_blocks_that_are_sharded_by_themselves_run_once_and_share_no_weight() -> None:
    bert, albert = build("bert"), build("albert")
    assert _blocks(bert, LayerMap.from_model(bert)) == list(bert.bert.encoder.layer)
    assert _blocks(albert, LayerMap.from_model(albert)) == []
    bert.tied = nn.Linear(16, 16)
    bert.tied.weight = bert.bert.encoder.layer[1].attention.self.query.weight
    assert _blocks(bert, LayerMap.from_model(bert)) == [bert.bert.encoder.layer[0]]

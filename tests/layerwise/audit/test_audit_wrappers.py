"""Wrappers and compiled graphs that are older than what trains."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from nlp_ft.layerwise import LayerMap, audit, build_optimizer, set_trainable
from tests.layerwise.auditing import bert, found, loss, names, strategy, the_only


@pytest.mark.usefixtures("process_group")
def test_a_ddp_wrapper_that_is_older_than_an_unfreezing() -> None:
    model = bert()
    layer_map = LayerMap.from_model(model)
    optimizer = build_optimizer(model)
    set_trainable(model, layer_map, 2)
    wrapper = DistributedDataParallel(model, find_unused_parameters=True)
    assert found(audit(wrapper, optimizer)) == []
    set_trainable(model, layer_map, 1)
    late = the_only(audit(wrapper, optimizer), "stale_ddp_wrapper")
    assert late == tuple(f"module.{name}" for name in names(model, "bert.encoder.layer.0."))
    assert found(audit(DistributedDataParallel(model), optimizer)) == []


@pytest.mark.usefixtures("process_group")
def test_a_ddp_wrapper_that_waits_for_what_was_frozen_after_it() -> None:
    model = bert()
    layer_map = LayerMap.from_model(model)
    optimizer = build_optimizer(model)
    waiting, asking = DistributedDataParallel(model), DistributedDataParallel(model, find_unused_parameters=True)
    set_trainable(model, layer_map, 1)
    assert the_only(audit(waiting, optimizer), "stale_ddp_wrapper")[0] == (
        "module.bert.embeddings.word_embeddings.weight"
    )
    assert found(audit(asking, optimizer)) == []


CAN_LEAVE_UNGUARDED = hasattr(torch.compiler, "skip_guard_on_all_nn_modules_unsafe")
needs_unguarded = pytest.mark.skipif(not CAN_LEAVE_UNGUARDED, reason="this torch guards every module")


def unguarded() -> dict[str, Any]:
    """Options under which a graph does not check the modules; a new dict, for torch.compile empties it."""
    return {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe} if CAN_LEAVE_UNGUARDED else {}


@pytest.mark.usefixtures("process_group")
def test_a_ddp_wrapper_of_sparse_gradients_is_said_to_be_unchecked() -> None:
    model = nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Linear(4, 4))
    report = audit(DistributedDataParallel(model), SGD(model.parameters(), lr=0.1))
    assert "stale_ddp_wrapper: torch does not show what this DistributedDataParallel averages" in report.not_checked


class Small(nn.Module):
    """Compiles in a moment."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.lower, self.middle, self.upper = nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 2)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.upper(self.middle(torch.tanh(self.lower(values))))


def small_map(model: nn.Module) -> LayerMap:
    return LayerMap({name: 2 if "upper" in name else 1 for name, _ in model.named_parameters()}, 1)


def run(model: nn.Module) -> set[str]:
    """Names of the trainable parameters without a gradient after a step."""
    model.zero_grad()
    model(torch.ones(3, 4)).sum().backward()
    return {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}


@needs_unguarded
@pytest.mark.usefixtures("compiler")
def test_a_compiled_graph_that_is_older_than_an_unfreezing_and_does_not_notice() -> None:
    model = Small()
    model.lower.requires_grad_(False)
    compiled = torch.compile(model, backend="aot_eager", options=unguarded())
    optimizer = SGD(model.parameters(), lr=0.1)
    layer_map = small_map(compiled)
    assert run(compiled) == set()
    assert found(audit(compiled, optimizer, layer_map=layer_map)) == []
    model.lower.requires_grad_(True)
    lost = the_only(audit(compiled, optimizer, layer_map=layer_map), "stale_compiled_graph")
    assert set(lost) == run(compiled) == {"_orig_mod.lower.weight", "_orig_mod.lower.bias"}
    torch.compiler.reset()
    assert found(audit(compiled, optimizer, layer_map=layer_map)) == []
    assert run(compiled) == set()


@needs_unguarded
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(("backend", "options"), [("aot_eager", None), ("eager", unguarded())])
def test_a_compiled_graph_that_notices_or_runs_as_it_is_written_is_sound(backend: str, options: Any) -> None:
    model = Small()
    model.lower.requires_grad_(False)
    compiled = torch.compile(model, backend=backend, options=options)
    optimizer = SGD(model.parameters(), lr=0.1)
    run(compiled)
    model.lower.requires_grad_(True)
    report = audit(compiled, optimizer, layer_map=small_map(compiled))
    assert (found(report), report.not_checked) == ([], ())
    assert run(compiled) == set()


@pytest.mark.usefixtures("compiler", "process_group")
def test_a_graph_that_was_cut_for_ddp_is_said_to_be_unchecked() -> None:
    # Two buckets of 1 MiB and more: torch.compile cuts the graph between them.
    model = DistributedDataParallel(Small(width=600), bucket_cap_mb=1.1)
    compiled = torch.compile(model, backend="aot_eager")
    run(compiled)
    report = audit(compiled, SGD(model.parameters(), lr=0.1))
    assert "stale_compiled_graph: a compiled graph does not show what it was traced with" in report.not_checked


@pytest.mark.usefixtures("compiler")
def test_a_graph_for_evaluation_is_not_stale() -> None:
    model = Small()
    model.lower.requires_grad_(False)
    compiled = torch.compile(model, backend="aot_eager", options=unguarded())
    with torch.no_grad():
        compiled(torch.ones(3, 4))
    model.lower.requires_grad_(True)
    assert found(audit(compiled, SGD(model.parameters(), lr=0.1), layer_map=small_map(compiled))) == []
    assert run(compiled) == set()


@needs_unguarded
@pytest.mark.usefixtures("compiler")
def test_a_stale_graph_of_a_bert_compiled_in_place() -> None:
    model = bert()
    layer_map = LayerMap.from_model(model)
    set_trainable(model, layer_map, 2)
    model.compile(backend="aot_eager", options=unguarded())
    optimizer = build_optimizer(model)
    loss(model).backward()
    assert found(audit(model, optimizer)) == []
    set_trainable(model, layer_map, 1)
    assert the_only(audit(model, optimizer), "stale_compiled_graph") == names(model, "bert.encoder.layer.0.")
    model.zero_grad()
    loss(model).backward()
    assert {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None} == set(
        names(model, "bert.encoder.layer.0.")
    )


@pytest.mark.usefixtures("process_group")
def test_a_model_wrapped_anew_after_each_change_of_what_trains_is_sound() -> None:
    model, optimizer, _ = strategy(3)
    for lowest in (3, 1, 2):
        set_trainable(model, LayerMap.from_model(model), lowest)
        wrapper = DistributedDataParallel(model, find_unused_parameters=False)
        loss(wrapper).backward()
        optimizer.step()
        optimizer.zero_grad()
        report = audit(wrapper, optimizer)
        assert (report.findings, report.not_checked) == ((), ())

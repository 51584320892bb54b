"""Wrappers that are older than what trains."""

import pytest
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from nlp_ft.layerwise import LayerMap, audit, build_optimizer, set_trainable
from tests.layerwise.auditing import bert, found, names, the_only


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


@pytest.mark.usefixtures("process_group")
def test_a_ddp_wrapper_of_sparse_gradients_is_said_to_be_unchecked() -> None:
    model = nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Linear(4, 4))
    report = audit(DistributedDataParallel(model), SGD(model.parameters(), lr=0.1))
    assert "stale_ddp_wrapper: torch does not show what this DistributedDataParallel averages" in report.not_checked

"""Run by torchrun on two processes: gradual unfreezing under FSDP2 beside one process with the whole batch."""

import copy
import json
import sys

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from nlp_ft.durations import Duration
from nlp_ft.layerwise import LayerMap, UnfreezePlan, Unfreezer, UnfreezeSchedule, build_optimizer
from tests.tiny import tiny_config

STEPS, EVERY = 12, Duration(3, "st")


def prepared(model: PreTrainedModel, layer_map: LayerMap) -> tuple[torch.optim.Optimizer, Unfreezer]:
    optimizer = build_optimizer(model, lr=1e-3, layer_map=layer_map)
    plan = UnfreezePlan(UnfreezeSchedule.gradual(layer_map.num_layers, EVERY), STEPS, STEPS)
    return optimizer, Unfreezer(model, optimizer, plan, layer_map)


def main() -> None:
    distributed.init_process_group("gloo")
    mesh, rank = init_device_mesh("cpu", (2,)), distributed.get_rank()
    torch.manual_seed(0)
    config = tiny_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=3)
    whole = AutoModelForSequenceClassification.from_config(config)
    sharded = copy.deepcopy(whole)
    layer_map = LayerMap.from_model(whole)
    for block in sharded.bert.encoder.layer:
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    runs = [(whole, *prepared(whole, layer_map)), (sharded, *prepared(sharded, layer_map))]
    differences = []
    for step in range(STEPS):
        ids, labels = torch.randint(5, config.vocab_size, (8, 10)), torch.randint(3, (8,))
        mine = slice(4 * rank, 4 * rank + 4)
        for (model, optimizer, unfreezer), rows in zip(runs, (slice(None), mine), strict=True):
            unfreezer.begin_step(step)
            model(input_ids=ids[rows], labels=labels[rows]).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        pairs = zip(sharded.parameters(), whole.parameters(), strict=True)
        parts = [(part.full_tensor() if isinstance(part, DTensor) else part, other) for part, other in pairs]
        differences.append(max(float((part - other).detach().abs().max()) for part, other in parts))
    if rank == 0:
        json.dump(differences, sys.stdout)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()

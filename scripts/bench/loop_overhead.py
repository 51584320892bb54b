"""What loading and the training loop cost over a bare PyTorch loop that has the same batches ready.

The two take turns in blocks of steps, so that a drift of the machine's speed meets both; each starts from its own copy
of the same model. Prints one JSON line: seconds a step of each, and the ratio (median over the pairs of blocks).

    python scripts/bench/loop_overhead.py --blocks 12 --steps 20 --threads 2
"""

import argparse
import copy
import itertools
import json
import statistics
import time
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch.nn import functional as F

from nlp_ft.data.batch_loading import EpochStream, PaddingCollator
from nlp_ft.data.batch_sampling import RowBatches
from nlp_ft.data.text import load_text_data
from nlp_ft.layerwise import LayerMap, UnfreezePlan, Unfreezer, UnfreezeSchedule, build_lr_schedule, build_optimizer
from nlp_ft.models.text import build_classifier, load_tokenizer
from nlp_ft.recipe import TextRecipe
from nlp_ft.recipe.loader import load_recipe
from nlp_ft.tasks.losses import ClassificationLoss
from nlp_ft.training.loop import Loop
from nlp_ft.training.loop_state import LoopHooks, LoopSettings, LoopState


def bare_loop(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    batches: Sequence[dict[str, torch.Tensor]],
) -> None:
    """What one writes without any library."""
    model.train()
    for batch in batches:
        inputs = {key: value for key, value in batch.items() if key not in ("labels", "row")}
        loss = F.cross_entropy(model(**inputs).logits, batch["labels"])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="recipes/quickstart.yaml")
    parser.add_argument("--blocks", type=int, default=12, help="pairs of blocks counted, after one that is not")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of a block")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = load_recipe(options.recipe, ["training.precision=fp32"])
    if not isinstance(recipe, TextRecipe):
        parser.error("the recipe must be one for texts")
    tokenizer = load_tokenizer(recipe.model)
    data = load_text_data(recipe.data, tokenizer)
    collator = PaddingCollator(tokenizer, ["input_ids", "token_type_ids", "labels"])
    size = recipe.training.per_device_batch_size or 16
    batches = RowBatches(size, 1, 1, group_by_length=True)
    stream = EpochStream(data.encoded["train"], data.lengths("train"), collator, batches, 0, 0)
    bare_model = build_classifier(recipe.model, data.label_names, tokenizer)
    our_model = copy.deepcopy(bare_model)
    bare_optimizer = build_optimizer(bare_model, lr=1e-4)
    our_optimizer = build_optimizer(our_model, lr=1e-4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(bare_optimizer, build_lr_schedule("linear", 100_000))
    plan = UnfreezePlan(
        UnfreezeSchedule.fixed(LayerMap.from_model(our_model).num_layers), 100_000, stream.steps_per_epoch
    )
    unfreezer = Unfreezer(our_model, our_optimizer, plan, lr_schedule=lambda steps: build_lr_schedule("linear", steps))
    accelerator = Accelerator()
    prepared_model, prepared_optimizer = accelerator.prepare(our_model, our_optimizer)
    settings = LoopSettings(options.steps, stream.steps_per_epoch, 10**9, 10**9, max_grad_norm=1.0)
    hooks = LoopHooks(dict, lambda step: None, lambda step: None, lambda state: None, lambda record: None)
    loss = ClassificationLoss()
    seconds: dict[str, list[float]] = {"bare": [], "ours": []}
    ready = [batch for _, [batch] in itertools.islice(stream(0, 0), options.steps)]
    for _ in range(options.blocks + 1):
        started = time.perf_counter()
        bare_loop(bare_model, bare_optimizer, scheduler, ready)
        middle = time.perf_counter()
        Loop(
            accelerator, prepared_model, prepared_optimizer, unfreezer, loss, stream, settings, hooks, LoopState()
        ).run()
        seconds["bare"].append((middle - started) / options.steps)
        seconds["ours"].append((time.perf_counter() - middle) / options.steps)
    ratios = [ours / bare for ours, bare in zip(seconds["ours"][1:], seconds["bare"][1:], strict=True)]
    print(
        json.dumps(
            {
                "ratio_median": round(statistics.median(ratios), 4),
                "ratio_min": round(min(ratios), 4),
                "ratio_max": round(max(ratios), 4),
                "bare_seconds_a_step": round(statistics.median(seconds["bare"][1:]), 4),
                "our_seconds_a_step": round(statistics.median(seconds["ours"][1:]), 4),
                "settings": vars(options),
            }
        )
    )


if __name__ == "__main__":
    main()

"""Which architectures are mapped right: every text model of Transformers and every classifier of torchvision.

Each map is held against the oracles of the tests, which know nothing of how maps are made. Prints a line for each model
under each head, then the totals, and writes the lines as JSON.

    python scripts/bench/layer_census.py --output layer_census.json
    python scripts/bench/layer_census.py --kinds text --heads sequence --models bert t5
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from nlp_ft.errors import LayerMapError
from nlp_ft.layerwise import LayerMap
from nlp_ft.tables import text_table
from tests.layerwise import text_census, text_oracle, vision_census

Differences = Callable[[Any, LayerMap], list[str]]


@dataclass(frozen=True)
class Verdict:
    """One line of the census."""

    kind: str
    """`text` or `vision`."""
    model: str
    head: str
    """The head of a text model, or the grain of a vision model."""
    layers: str
    """Number of blocks (or stages) of each stack."""
    verdict: str
    """`right`, `wrong`, `refused` (with a LayerMapError) or `not built`."""
    seconds: float
    """For the map alone."""
    reason: str


def judge(kind: str, name: str, head: str, build: Callable[[], nn.Module], differences: Differences) -> Verdict:
    """Build a model and its map, and hold the map against the oracle."""
    try:
        model = build()
    except ImportError:
        return Verdict(kind, name, head, "-", "not built", 0.0, text_census.CANNOT_BE_BUILT[name])
    started = time.perf_counter()
    try:
        layer_map = LayerMap.from_model(model, grain="stage" if head == "stage" else "block")
    except LayerMapError as error:
        return Verdict(kind, name, head, "-", "refused", time.perf_counter() - started, str(error))
    seconds = time.perf_counter() - started
    found = differences(model, layer_map)
    reason = f"{len(found)} parameters: {found[0]}" if found else "; ".join(layer_map.notes)
    layers = " + ".join(map(str, layer_map.stacks.values()))
    return Verdict(kind, name, head, layers, "wrong" if found else "right", seconds, reason)


def text(models: Sequence[str], heads: Sequence[str]) -> Iterator[Verdict]:
    """Every type under every head that Transformers has for it."""
    for name in [name for name in text_census.MODEL_TYPES if not models or name in models]:
        for head in [head for head in text_census.heads_of(name) if head in heads]:
            differences = partial(text_oracle.differences, model_type=name, head=head)
            yield judge("text", name, head, partial(text_census.build, name, head), differences)


def vision(models: Sequence[str]) -> Iterator[Verdict]:
    """Every classifier at both grains."""
    for name in [name for name in vision_census.MODELS if not models or name in models]:
        for grain in ("block", "stage"):
            yield judge("vision", name, grain, partial(vision_census.build, name), partial(departures, name, grain))


def departures(name: str, grain: str, model: nn.Module, layer_map: LayerMap) -> list[str]:
    """Where a map at one grain departs from the tables."""
    return vision_census.differences(model, {grain: layer_map}, name)


def main() -> None:
    """Judge, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=["text", "vision"], default=["text", "vision"])
    parser.add_argument("--heads", nargs="+", choices=list(text_census.AUTO_CLASSES), default=["sequence"])
    parser.add_argument("--models", nargs="+", default=[], help="names; all when left out")
    parser.add_argument("--output", type=Path, help="JSON file for the lines of the table")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    verdicts = list(text(options.models, options.heads)) if "text" in options.kinds else []
    verdicts += vision(options.models) if "vision" in options.kinds else []
    rows = [[v.kind, v.model, v.head, v.layers, v.verdict, f"{v.seconds:.2f}", v.reason[:120]] for v in verdicts]
    print(text_table(["kind", "model", "head", "layers", "verdict", "seconds", "reason"], rows, right={3, 5}))
    for (kind, head), count in Counter((v.kind, v.head) for v in verdicts).items():
        totals = Counter(v.verdict for v in verdicts if (v.kind, v.head) == (kind, head))
        print(f"{kind}, {head}: {count}; " + ", ".join(f"{number} {verdict}" for verdict, number in totals.items()))
    if options.output:
        options.output.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

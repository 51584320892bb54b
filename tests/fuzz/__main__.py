"""The whole fuzzer: `python -m tests.fuzz --seed 0 --cases 1000` prints how many trials ended how, and each bad one."""

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

from tests.fuzz import data_files, model_folders, stored
from tests.fuzz.driver import GOOD, Trial, run_trial
from tests.fuzz.workplace import make_workplace

SLOW = 5.0
"""Seconds from which on a good trial is shown too."""


def all_trials(seed: int, cases: int = 0, with_images: bool = True) -> list[Trial]:
    """Every structure, and behind them damaged things until there are so many, each in an order drawn from the seed."""
    structures = _trials(seed, 0, with_images)
    kept = {trial.name for trial in structures}
    drawn = [trial for trial in _trials(seed, max(cases - len(structures), 0), with_images) if trial.name not in kept]
    for trials in (structures, drawn):
        random.Random(seed).shuffle(trials)
    return [*structures, *drawn][: cases or None]


def _trials(seed: int, share: int, with_images: bool) -> list[Trial]:
    """The structures of each kind, and so many damaged things of each."""
    return [
        *data_files.trials(seed, share, with_images),
        *model_folders.trials(seed, share),
        *stored.checkpoints(seed, share),
        *stored.caches(seed, share),
        *stored.runs(seed, share),
        *stored.machines(),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Gives 1 where a trial ended badly."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--only", default="", help="what the trial's name must contain")
    options = parser.parse_args(arguments)
    endings: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        base = make_workplace(Path(temporary) / "base" / "work")
        found = [trial for trial in all_trials(options.seed, options.cases) if options.only in trial.name]
        start = time.monotonic()
        for trial in found:
            ending = run_trial(trial, base)
            endings[trial.kind, ending.kind] += 1
            if ending.kind not in GOOD or ending.seconds > SLOW:
                print(f"{ending.seconds:.1f} s, {ending}", flush=True)
        print(f"{len(found)} trials in {time.monotonic() - start:.0f} s")
    for (kind, end), number in sorted(endings.items()):
        print(f"{kind:12} {end:16} {number:5}")
    return 0 if all(end in GOOD for _, end in endings) else 1


if __name__ == "__main__":
    sys.exit(main())

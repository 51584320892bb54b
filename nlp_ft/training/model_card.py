"""Writes the model card, README.md of the run folder: what the model is, how good, of what, and how to use it."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from nlp_ft.errors import printable
from nlp_ft.hub import is_hub_id
from nlp_ft.recipe import Recipe
from nlp_ft.tasks.task import Card

PLACE = "PATH/TO/THIS/FOLDER"
"""Where a program in the card loads the model from."""
SHOWN_CHARACTERS = 200
"""Most characters of a label in the model card."""
SPECIAL_IN_MARKDOWN = re.compile(r"[\\`*\[\]<>&#!|~$@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.")
"""Characters with a meaning in Markdown; not an underscore between letters, but also parts of a bare web address."""


def markdown_text(text: str) -> str:
    """Escape foreign text so that Markdown shows it as one plain line, without HTML, image, link, fence or formula."""
    return _escaped(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "...")


def _escaped(text: str) -> str:
    return SPECIAL_IN_MARKDOWN.sub(r"\\\g<0>", printable(text))


def model_card(card: Card, recipe: Recipe, summary: Mapping[str, Any], scores: str, layers: str) -> str:
    """Write the README.md of the run folder.

    Args:
        card: what depends on the task.
        recipe: the recipe of the run.
        summary: what summary.json will hold.
        scores: a table of the scores.
        layers: a table of the layers.
    """
    return f"""---
library_name: {"nlp_ft" if card.needs_import else "transformers"}
pipeline_tag: {card.pipeline_tag}
tags: [{card.pipeline_tag}, nlp_ft]
{_on_hub(recipe)}---

# {markdown_text(card.title)}

{card.gives or _gives(card)}
Strategy `{summary["strategy"]}`, seed {summary["seed"]}, {summary["num_trainable_parameters"]:,} of
{summary["num_parameters"]:,} parameters trained, {summary["train_seconds"]:,.1f} seconds of training
({summary["train_examples_per_second"]:.0f} examples a second on {summary["device"]}).

## Scores

```text
{scores}
```

{_intervals(summary)}
One run with one seed: compare several seeds before you trust a small difference.

{_verdict(summary["verdict"])}

## Use

```python
{card.example or _pipeline_call(card)}
```

## Data

{_data(recipe, summary)}

## Training

{_cost(summary)}
{_phases(summary["phases"])}
```text
{layers}
```

## Limits

{_limits(card, recipe)}

## Reproduce

```text
nlp-ft train recipe.yaml output_dir=runs/again
```

{", ".join(f"{name} {number}" for name, number in summary["versions"].items())}.

`recipe.yaml` holds every setting and `summary.json` every figure. The folder of the run also has the course of the
training (`metrics.jsonl`), the predictions for the held-out rows, and `report.html`, which shows both.
"""


def calibration_line(calibration: Mapping[str, Any]) -> str:
    """Say what the temperature has done to the calibration error of each split."""
    before, after = calibration["ece_before"], calibration["ece_after"]
    errors = ", ".join(f"{split} {before[split]:.4f} -> {after[split]:.4f}" for split in before)
    return f"temperature {calibration['temperature']:.3f}, fitted on validation: calibration error (ECE) {errors}"


def _gives(card: Card) -> str:
    if len(card.numbers) > 1:
        return f"{len(card.numbers)} numbers for each input: {', '.join(map(markdown_text, card.numbers))}."
    shown = ", ".join(map(markdown_text, card.labels[:20])) + (", ..." if len(card.labels) > 20 else "")
    return f"{len(card.labels)} labels: {shown}." if card.labels else "One number for each input."


def _intervals(summary: Mapping[str, Any]) -> str:
    """Write the half widths of the 95 % intervals, a line for each split, and what a temperature has done."""
    lines = []
    for split, margins in summary["margins"].items():
        values, rows = summary["metrics"][split], summary["data"][split]["rows"]
        said = [
            f"{name.replace('_', ' ')} {values[name]:.4f} ± {margin:.4f}"
            for name, margin in margins.items()
            if name in values
        ]
        if said:
            lines.append(f"- {split}, {rows:,} rows: {', '.join(said)} (95 % interval)\n")
    if "calibration" in summary:
        lines.append(f"- {calibration_line(summary['calibration'])}\n")
    return "".join(lines)


def _data(recipe: Recipe, summary: Mapping[str, Any]) -> str:
    """Write where the rows come from, and of each split the number of its rows and the hash of its content."""
    source = recipe.data.source
    hub = " of the Hugging Face Hub" if is_hub_data(recipe) else ""
    place = ", ".join(map(markdown_text, _names(source or recipe.data.train)))
    hashes = summary["data_hashes"]
    lines = [f"| {split} | {of['rows']:,} | `{hashes[split]}` |" for split, of in summary["data"].items()]
    table = ["| split | rows | hash of inputs and labels |", "|---|---:|---|", *lines]
    return "\n".join([f"From {place}{hub}. Licence of the data: (fill in).", "", *table])


def _on_hub(recipe: Recipe) -> str:
    """Name the base model and the data for the Hub, where they are on it; paths tell themselves from ids here alone."""
    # A network of torchvision has a name of its own, and weights.
    is_base = not hasattr(recipe.model, "weights") and is_hub_id(recipe.model.name)
    base = f"base_model: {json.dumps(recipe.model.name)}\n" if is_base else ""
    return base + (f"datasets: [{json.dumps(recipe.data.source)}]\n" if is_hub_data(recipe) else "")


def is_hub_data(recipe: Recipe) -> bool:
    """Whether the rows come from a data set of the Hub."""
    return isinstance(recipe.data.source, str) and is_hub_id(recipe.data.source)


def _names(places: str | Sequence[str]) -> list[str]:
    """Leave out the folders of absolute paths, which say something of the machine and nothing of the data."""
    listed = [places] if isinstance(places, str) else places
    return [PurePath(place).name if PurePath(place).is_absolute() else place for place in listed]


def _cost(summary: Mapping[str, Any]) -> str:
    return (
        f"{summary['global_step']:,} steps of {summary['effective_batch_size']:,.0f} rows in {summary['precision']} on "
        f"{summary['num_processes']} x {summary['device']}; {summary['train_seconds']:,.1f} seconds of training, "
        f"{summary['peak_memory_bytes'] / 2**20:,.0f} MiB of memory at most."
        + (f" The weights are those of step {summary['best_step']:,}." if _is_best(summary) else "")
        + "\n"
    )


def _is_best(summary: Mapping[str, Any]) -> bool:
    return bool(summary["best_step"]) and summary["keep"] == "best"


def _phases(phases: Sequence[Mapping[str, Any]]) -> str:
    """Write a table of the phases; nothing if there is one."""
    if len(phases) < 2:
        return ""
    lines = [f"| {phase['step']:,} | {phase['layers']} | {_escaped(phase['why'])} |" for phase in phases]
    return "\n".join(["| after step | layers that train | why |", "|---:|---|---|", *lines, ""])


def _limits(card: Card, recipe: Recipe) -> str:
    """List what holds of every such model, and what this one cannot know."""
    limits = [
        "Scores hold for inputs like those of the data above; on others, the model may be worse without a sign of it."
    ]
    if recipe.has_one_label and card.labels:
        limits.append("Each input gets one of the labels above, also one that fits none of them.")
    length, truncation = (getattr(recipe.data, key, None) for key in ("max_length", "truncation"))
    if truncation in ("head", "tail", "head_tail"):
        limits.append(f"Of an input of more than {length} tokens, the model reads a part.")
    if truncation in ("head_tail", "windows"):
        limits.append(
            f"Of an input of more than {length} tokens, the pipeline above reads the beginning alone; `nlp-ft predict` "
            f"reads it as for the scores, by truncation `{truncation}`."
        )
    limits.append("What the pretrained network and the labels have learned wrong or one-sided, the model has, too.")
    return "\n".join(f"- {limit}" for limit in limits)


def _pipeline_call(card: Card) -> str:
    """Write a program that loads the model into a pipeline and calls it."""
    needed = ["import nlp_ft  # registers the model's class"] if card.needs_import else []
    load = f'classify = pipeline("{card.pipeline_tag}", model="{PLACE}")'
    return "\n".join([*needed, "from transformers import pipeline", "", load, f"print(classify({card.call}))"])


def _verdict(verdict: Sequence[Mapping[str, str]]) -> str:
    """Write the remarks as a list, each with what to do."""
    remarks = [f"{remark['says']} To do: {remark['do']}." if remark["do"] else remark["says"] for remark in verdict]
    return "\n".join(["Verdict:", "", *(f"- {_escaped(remark)}" for remark in remarks)])

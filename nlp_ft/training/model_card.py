"""Writes the model card, and collects facts for the summary: versions and peak memory."""

import json
import platform
import re
import resource
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nlp_ft
from nlp_ft.errors import printable
from nlp_ft.tasks.task import Card

LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "evaluate", "numpy", "scikit-learn")
SHOWN_CHARACTERS = 200
"""Most characters of a label in the model card."""
SPECIAL_IN_MARKDOWN = re.compile(r"[\\`*\[\]<>&#!|~$@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.")
"""Characters with a meaning in Markdown; not an underscore between letters, but also parts of a bare web address."""


def versions(of_task: Sequence[str] = ()) -> dict[str, str]:
    """Collect the versions of nlp_ft, Python and the libraries that a result depends on, those of the task included."""
    return {
        "nlp_ft": nlp_ft.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in (*LIBRARIES, *of_task)},
    }


def peak_memory_bytes(device: torch.device) -> int:
    """Measure the peak memory in bytes: of the accelerator if there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Read from /proc, because on Linux getrusage includes the memory of the process that started this one.
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Write JSON with line breaks, for people to read."""
    file.write_text(json.dumps(values, indent=2, default=_plain) + "\n", encoding="utf-8")


def markdown_text(text: str) -> str:
    """Escape foreign text so that Markdown shows it as one plain line, without HTML, image, link, fence or formula."""
    return _escaped(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "...")


def _escaped(text: str) -> str:
    return SPECIAL_IN_MARKDOWN.sub(r"\\\g<0>", printable(text))


def model_card(card: Card, summary: Mapping[str, Any], scores: str) -> str:
    """Write the README.md of the run folder: what the model is, its scores as a table, how to use it."""
    shown = ", ".join(map(markdown_text, card.labels[:20])) + (", ..." if len(card.labels) > 20 else "")
    gives = f"{len(card.labels)} labels: {shown}." if card.labels else "One number for each input."
    if len(card.numbers) > 1:
        gives = f"{len(card.numbers)} numbers for each input: {', '.join(map(markdown_text, card.numbers))}."
    of_layers = "score" if "probe" in summary else "learning rate"
    return f"""---
library_name: transformers
pipeline_tag: {card.pipeline_tag}
tags: [{card.pipeline_tag}, nlp_ft]
---

# {markdown_text(card.title)}

{card.gives or gives}
Strategy `{summary["strategy"]}`, seed {summary["seed"]}, {summary["num_trainable_parameters"]:,} of
{summary["num_parameters"]:,} parameters trained, {summary["train_seconds"]:.0f} seconds of training
({summary["train_examples_per_second"]:.0f} examples a second on {summary["device"]}).

```text
{scores}
```

{_verdict(summary["verdict"])}

One run with one seed: compare several seeds before you trust a small difference.

## Use

```python
{card.example or _pipeline_call(card)}
```

`recipe.yaml` holds every setting, `summary.json` every figure, `metrics.jsonl` the course of the training,
`layers.txt` the {of_layers} of each layer; `report.html`, if it is there, shows them.
"""


def _pipeline_call(card: Card) -> str:
    """Write a program that loads the model into a pipeline and calls it."""
    needed = ["import nlp_ft  # registers the model's class"] if card.needs_import else []
    load = f'classify = pipeline("{card.pipeline_tag}", model="PATH/TO/THIS/FOLDER")'
    return "\n".join([*needed, "from transformers import pipeline", "", load, f"print(classify({card.call}))"])


def _verdict(verdict: Sequence[Mapping[str, str]]) -> str:
    """Write the remarks as a list, each with what to do."""
    remarks = [f"{remark['says']} To do: {remark['do']}." if remark["do"] else remark["says"] for remark in verdict]
    return "\n".join(["Verdict:", "", *(f"- {_escaped(remark)}" for remark in remarks)])


def _plain(value: object) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")

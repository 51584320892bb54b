"""The model card as the Hub reads it: README.md of the run with metadata about data, licence and results."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from nlp_ft.errors import HubError
from nlp_ft.recipe.sections import is_share
from nlp_ft.training.model_card import PLACE

UNKNOWN = "unknown"
"""The Hub's word for a licence that nobody has named."""
METRICS = {
    "macro_f1": "f1",
    "micro_f1": "f1",
    "weighted_f1": "f1",
    "samples_f1": "f1",
    "span_f1": "f1",
    "span_precision": "precision",
    "span_recall": "recall",
    "matthews": "matthews_correlation",
    "spearman": "spearmanr",
    "pearson": "pearsonr",
}
"""Metric of a run -> the Hub's type of it, where the two differ."""


def hub_card(
    text: str, repo_id: str, license_id: str | None, recipe: Mapping[str, Any], summary: Mapping[str, Any]
) -> str:
    """Add metadata to a model card.

    Args:
        text: README.md of the run.
        repo_id: where the model will be.
        license_id: its licence; None keeps the one of the card, or says `unknown`.
        recipe: the recipe of the run, as nested settings.
        summary: summary.json.

    Raises:
        HubError: the metadata of the card cannot be read.
    """
    try:
        card = ModelCard(text.replace(PLACE, repo_id), ignore_metadata_errors=True)
    except Exception as error:  # of YAML, or of what the Hub wants of it
        raise HubError(f"README.md: the metadata between its --- cannot be read: {error}") from None
    data: Any = card.data
    data.license = license_id or data.license or UNKNOWN
    [source, *_] = [data.datasets] if isinstance(data.datasets, str) else data.datasets or [None]
    if results := _results(recipe["data"], source, summary, data.pipeline_tag):
        data.model_name, data.eval_results = repo_id.rpartition("/")[2], results
        data.metrics = list(dict.fromkeys(result.metric_type for result in results))
    return str(card)


def _results(
    data: Mapping[str, Any], source: str | None, summary: Mapping[str, Any], task_type: str
) -> list[EvalResult]:
    """List the scores with a known interval, on each split, for the model-index."""
    found = []
    for split, scores in summary["metrics"].items():
        for name, margin in summary.get("margins", {}).get(split, {}).items():
            if name not in scores:
                continue
            title = f"{name.replace('_', ' ')} (seed {summary['seed']}, 95 % interval ± {margin:.4f})"
            found.append(
                EvalResult(
                    task_type=task_type,
                    dataset_type=source or "private",
                    dataset_name=source or "rows of the run",
                    dataset_config=data.get("config"),
                    dataset_revision=data.get("revision"),
                    dataset_split=_split_on_hub(data, split) if source and source == data.get("source") else split,
                    metric_type=METRICS.get(name, name),
                    metric_name=title,
                    metric_value=round(scores[name], 4),
                )
            )
    return found


def _split_on_hub(data: Mapping[str, Any], split: str) -> str:
    """Name the split of a data set of the Hub that was scored: a recipe may take its `validation` as test."""
    where = data.get(split)
    if is_share(where):
        return f"{where} of {data['train']}"
    return where if isinstance(where, str) else split

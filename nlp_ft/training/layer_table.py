"""What was decided, as text: the layer table with its rates, the plan of steps, the scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from nlp_ft.layerwise import LayerMap
from nlp_ft.layerwise.layer_map import common_modules
from nlp_ft.tables import text_table
from nlp_ft.tasks.metrics import PerClass, compute
from nlp_ft.training.evaluation import Predictions

SHOWN_METRICS = ("accuracy", "macro_f1", "weighted_f1", "matthews", "loss")


def layer_table(layer_map: LayerMap, groups: Sequence[Mapping[str, Any]]) -> str:
    """A row a layer, from the head down: modules, parameters, learning rate and its factor, weight decay, trainable."""
    rows = []
    for layer_id, stack in dict.fromkeys((group["layer_id"], group["stack"]) for group in groups):
        of_layer = [group for group in groups if (group["layer_id"], group["stack"]) == (layer_id, stack)]
        parameters = [parameter for group in of_layer for parameter in group["params"]]
        trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        size = sum(parameter.numel() for parameter in parameters)
        rows.append(
            [
                str(layer_id),
                layer_map.layer_name(layer_id, stack),
                common_modules(name for group in of_layer for name in group["param_names"]),
                f"{size:,}",
                f"{of_layer[0]['lr']:.3g}",
                f"{of_layer[0]['lr_scale']:.4g}",
                f"{max(group['weight_decay'] for group in of_layer):g}",
                "yes" if trainable == size else "frozen" if trainable == 0 else f"{trainable:,}",
            ]
        )
    header = ["layer", "name", "modules", "parameters", "lr", "lr scale", "weight decay", "trainable"]
    return "\n".join([text_table(header, rows, right={0, 3, 4, 5, 6}), *layer_map.notes])


def score_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """A row for each scored thing (`validation`, `test`, a baseline), a column for each metric."""
    names = [name for name in SHOWN_METRICS if any(name in values for values in scores.values())]
    rows = [
        [title, *(f"{values[name]:.4f}" if name in values else "-" for name in names)]
        for title, values in scores.items()
    ]
    return text_table(["", *(name.replace("_", " ") for name in names)], rows, right=range(1, len(names) + 1))


def per_class_table(predictions: Predictions, label_names: Sequence[str]) -> str:
    """Precision, recall, F1 and support of each label."""
    rows = compute(PerClass, predictions.predicted, predictions.labels, label_names=label_names)["per_class"]
    fields = ("precision", "recall", "f1")
    cells = [[row["label"], *(f"{row[field]:.4f}" for field in fields), f"{row['support']:.0f}"] for row in rows]
    return text_table(["label", *fields, "support"], cells, right=range(1, 5))

"""The training of strategy probe: it solves for the head at once, where other strategies take steps.

The features of train are computed once, cross-validation chooses layer and penalty, and the solution becomes the
weights of the model's own head: the model that is left is an ordinary one.
"""

import math
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel

from nlp_ft.errors import TrainingError
from nlp_ft.models.pooled_classifier import PooledClassifier
from nlp_ft.models.probed import read_layer, read_mean
from nlp_ft.models.scaling import last_linear
from nlp_ft.recipe import Recipe
from nlp_ft.recipe.probe import ProbeSection
from nlp_ft.screen import say
from nlp_ft.tasks.classes import class_weights
from nlp_ft.tasks.task import Task
from nlp_ft.training.agreement import errors_of_all
from nlp_ft.training.build import example_inputs
from nlp_ft.training.loop_state import LoopHooks, LoopState
from nlp_ft.training.probe.features import layer_features
from nlp_ft.training.probe.fit import Linear, Validated, fit, validate
from nlp_ft.training.probe.judge import Judge
from nlp_ft.training.probe.table import probe_table

Layer = int | Literal["mean"]


@dataclass(frozen=True)
class Probe:
    """Solves for the head of a model, in place; it takes the place of the loop.

    Args:
        section: the section `strategy.probe` of the recipe.
        recipe: the recipe.
        task: its task.
        model: the model, without wrappers, on its device.
        state: the state of the run; `probe`, `train_seconds` and `train_examples` are set.
        accelerator: the accelerator of the run; its main process solves.
        hooks: the functions of the loop, of which `record` and `asked_to_stop` are called.
    """

    section: ProbeSection
    recipe: Recipe
    task: Task
    model: PreTrainedModel
    state: LoopState
    accelerator: Accelerator
    hooks: LoopHooks

    def run(self) -> None:
        """Choose layer and penalty, and write the solution into the head; collective.

        Raises:
            NlpFtError: the model has no such layer, or its layers cannot be read.
            KeyboardInterrupt: `asked_to_stop` returned True.
        """
        started = time.perf_counter()
        features = layer_features(self.recipe, self.task, ["train"], model=self.model)["train"]
        candidates = self._candidates(len(features))
        if self.hooks.asked_to_stop():
            raise KeyboardInterrupt
        solved: list[Any] = [None]
        with errors_of_all(self.accelerator):
            if self.accelerator.is_main_process:
                solved = [self._solve(features, candidates)]
        [(layer, linear, self.state.probe)] = broadcast_object_list(solved)
        self._write(layer, linear)
        self.state.train_seconds += time.perf_counter() - started
        self.state.train_examples = features.shape[1]
        self.hooks.record({"step": 0, "epoch": 0.0, "probe": self.state.probe})
        say(f"{probe_table(self.state.probe)}\n")

    def _candidates(self, num_layers: int) -> list[Layer]:
        """List the features to choose from. Raises: TrainingError: the model does not have those of the recipe."""
        layer, top = self.section.layer, num_layers - 1
        pooling = getattr(self.model.config, "pooling", None)
        if num_layers == 1:
            return [0]
        require_layer(layer, top, pooling)
        if layer != "auto":
            return [layer]
        # The embedding of a CLS token is the same for all texts.
        of_layers: list[Layer] = [*range(int(pooling == "cls"), num_layers)]
        return [*of_layers, "mean"] if pooling == "mean" else of_layers

    def _solve(self, features: np.ndarray, candidates: list[Layer]) -> tuple[Layer, Linear, dict[str, Any]]:
        """Choose among the candidates and fit; return the layer, the model, and the facts for the summary."""
        judge = Judge(self.task.outputs, self.recipe.training.metric)
        labels = judge.as_outputs(self.task.data.labels("train"))
        kind, weights = self.section.classifier, self._class_weight()
        found = [
            validate(_of(features, one), labels, judge.score, kind, self.section.folds, weights, self.recipe.seed)
            for one in candidates
        ]
        best = _chosen(found, candidates.index(len(features) - 1) if len(candidates) > 1 else 0)
        layer, chosen = candidates[best], found[best]
        num_outputs = len(self.model.config.id2label or {})
        linear = fit(_of(features, layer), labels, num_outputs, chosen.penalty, kind, weights)
        facts = {
            "layer": layer,
            "classifier": "ridge" if np.issubdtype(labels.dtype, np.floating) else kind,
            "penalty": chosen.penalty,
            "metric": judge.metric,
            "layers": [
                {
                    "name": _name(one, len(features)),
                    "score": _known(judge.sign * of.mean),
                    "standard_error": _known(of.standard_error),
                    "chosen": one == layer,
                }
                for one, of in zip(candidates, found)
            ],
        }
        return layer, linear, facts

    def _write(self, layer: Layer, linear: Linear) -> None:
        """Make the model read the layer, and put the solution into its head."""
        model = self.model
        if isinstance(model, PooledClassifier):
            if layer == "mean":
                read_mean(model)
            else:
                example = {key: value.to(model.device) for key, value in example_inputs(self.task).items()}
                read_layer(model, layer, example)
        head = last_linear(model, len(linear.bias))
        assert head is not None  # its input was seen
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(linear.weight))
            head.bias.copy_(torch.from_numpy(linear.bias))

    def _class_weight(self) -> dict[int, float] | None:
        """Return label id -> weight. Raises: TrainingError: the weights do not fit the labels."""
        setting = self.recipe.loss.class_weights
        return None if setting is None else dict(enumerate(class_weights(setting, self.task.label_counts())))


def require_layer(layer: Layer | Literal["auto"], num_blocks: int, pooling: str | None) -> None:
    """Check that a model has the features that a recipe names. Raises: TrainingError."""
    if layer == "mean" and pooling != "mean":
        raise TrainingError(f"strategy.probe.layer mean needs model.pooling mean, but it is {pooling}")
    if isinstance(layer, int) and layer > num_blocks:
        raise TrainingError(f"strategy.probe.layer must be at most {num_blocks}, the blocks of this model, got {layer}")


def _chosen(found: list[Validated], last: int) -> int:
    """Choose the place of the best score; but that of the last layer, unless it is worse by more than a standard error.

    Among few rows the best of many layers is the best by chance (Breiman et al. 1984, the one-standard-error rule).
    """
    best = max(range(len(found)), key=lambda place: np.nan_to_num(found[place].mean, nan=-np.inf))
    return best if found[last].mean < found[best].mean - found[best].standard_error else last


def _of(features: np.ndarray, layer: Layer) -> np.ndarray:
    """Take the features of one layer, or the mean of all, out of (layers, rows, hidden)."""
    return np.asarray(features.mean(0) if layer == "mean" else features[layer])


def _name(layer: Layer, num_layers: int) -> str:
    if num_layers == 1:
        return "input of the head"
    if layer == "mean":
        return "mean of all"
    return "embeddings" if layer == 0 else f"block {layer}"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)

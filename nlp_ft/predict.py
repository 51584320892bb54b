"""Using a run folder: predictions for new texts, and scores on a labelled file or split."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import nlp_ft.models.pooled_classifier  # noqa: F401  # registers the class that a run folder may hold
from nlp_ft.data.batching import PaddingCollator
from nlp_ft.data.sources import load_files, text_columns
from nlp_ft.data.splits import progress_bars
from nlp_ft.data.text import TextData, encode_split, load_text_data
from nlp_ft.data.tokens import encode_texts
from nlp_ft.errors import DataError, RunFolderError
from nlp_ft.models.text import LOADING_ERRORS, label_names, quiet_transformers, require_model_files
from nlp_ft.recipe import Recipe
from nlp_ft.recipe_loader import load_recipe
from nlp_ft.training.evaluation import Predictions, predict_split

BATCH_SIZE = 64


@dataclass(frozen=True)
class Prediction:
    """Of one text: the likeliest label, its probability, and the probability of every label."""

    label: str
    score: float
    scores: dict[str, float]


@dataclass(frozen=True)
class TrainedRun:
    """A run folder, loaded."""

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel

    @property
    def label_names(self) -> list[str]:
        """In the order of their ids."""
        return label_names(self.model)


def load_run(folder: str | Path) -> TrainedRun:
    """Load a finished run. Raises: RunFolderError: it is no run folder."""
    folder = Path(folder)
    missing = [name for name in ("recipe.yaml", "config.json", "model.safetensors") if not (folder / name).exists()]
    if missing:
        partial = folder.with_name(folder.name + ".partial").exists()
        hint = "; its training has not finished: pass --resume to nlp-ft train" if partial else ""
        raise RunFolderError(f"{folder} is no finished run: it has no {', '.join(missing)}{hint}")
    with _damage_named(folder, "model"):
        require_model_files(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True)
    with _damage_named(folder, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
    return TrainedRun(load_recipe(folder / "recipe.yaml"), tokenizer, model.eval())


@contextmanager
def _damage_named(folder: Path, what: str) -> Iterator[None]:
    try:
        with quiet_transformers():
            yield
    except LOADING_ERRORS as error:
        raise RunFolderError(f"{folder}: its {what} is damaged: {str(error).strip()[:300]}") from None


def predict(folder: str | Path, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Prediction]:
    """Classify texts, or pairs of them, with the truncation that the run was trained with.

    Args:
        folder: a run folder.
        texts: single texts, or pairs where the run was trained on pairs.

    Raises:
        RunFolderError: it is no run folder.
        DataError: single texts for a model of pairs, or the other way round.
    """
    return predict_texts(load_run(folder), texts)


def predict_texts(run: TrainedRun, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Prediction]:
    """As `predict`, with a run that is loaded already."""
    wants_pairs = isinstance(run.recipe.data.text, list)
    if any(isinstance(text, str) == wants_pairs for text in texts):
        raise DataError(f"this model takes {'pairs of texts' if wants_pairs else 'single texts'}")
    columns = [list(map(str, column)) for column in zip(*texts)] if wants_pairs else [list(map(str, texts))]
    probabilities = np.zeros((len(texts), len(run.label_names)))
    if not len(texts):
        return []
    encoded = encode_texts(columns, run.tokenizer, run.recipe.data)
    keys = [key for key in encoded if key != "num_tokens"]
    collator = PaddingCollator(run.tokenizer, keys)
    order = np.argsort([-len(ids) for ids in encoded["input_ids"]], kind="stable")
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    model: torch.nn.Module = run.model
    model.to(device)
    for start in range(0, len(order), BATCH_SIZE):
        rows = order[start : start + BATCH_SIZE]
        batch = collator([{key: encoded[key][row] for key in keys} for row in rows])
        with torch.inference_mode():
            logits = model(**{key: value.to(device) for key, value in batch.items()}).logits
        probabilities[rows] = logits.float().softmax(-1).cpu().numpy()
    return [_prediction(row, run.label_names) for row in probabilities]


def read_texts(run: TrainedRun, file: str | None, texts: Sequence[str]) -> Sequence[str] | Sequence[tuple[str, str]]:
    """The texts of a file with the recipe's text column(s), or those given, paired up for a model of pairs.

    Raises:
        DataError: a column is missing, or an odd number of texts for a model of pairs.
    """
    names = text_columns(run.recipe.data)
    columns = [list(texts[i :: len(names)]) for i in range(len(names))]
    if file:
        with progress_bars(False):
            rows = load_files(file, "--file", names)
        missing = [name for name in names if name not in rows.column_names]
        if missing:
            raise DataError(f"--file: {file} has no column {missing[0]!r}; it has: {', '.join(rows.column_names)}")
        columns = [["" if text is None else str(text) for text in rows[name][:]] for name in names]
    if len(columns[0]) != len(columns[-1]):
        raise DataError(f"this model takes pairs of texts, got {len(texts)} texts")
    return columns[0] if len(names) == 1 else list(zip(*columns, strict=True))


def evaluate_run(folder: str | Path, data: str | None = None, split: str = "test") -> tuple[Predictions, list[str]]:
    """Predictions of a run on labelled rows.

    Args:
        folder: a run folder.
        data: file(s) with the columns of the recipe; None takes a split of the recipe.
        split: `train`, `validation` or `test` of the recipe, when `data` is None.

    Returns:
        The predictions, and the label names in the order of their ids.

    Raises:
        RunFolderError: it is no run folder.
        DataError: the rows cannot be read, or have labels that the model does not know.
    """
    run = load_run(folder)
    names = run.label_names
    encoded = _evaluation_data(run, data, split)
    keys = [key for key in ("input_ids", "token_type_ids", "labels") if key in encoded.encoded[split].column_names]
    accelerator = Accelerator()
    predictions = predict_split(
        accelerator,
        run.model.to(accelerator.device),
        encoded.encoded[split],
        encoded.lengths(split),
        PaddingCollator(run.tokenizer, keys),
        run.recipe.training.eval_batch_size,
    )
    return predictions, names


def _evaluation_data(run: TrainedRun, data: str | None, split: str) -> TextData:
    section = run.recipe.data
    if data is None:
        if getattr(section, split) is None:
            raise DataError(f"the recipe of this run has no {split} split; name a file with --data")
        return load_text_data(section, run.tokenizer)
    with progress_bars(False):
        rows = load_files(data, "--data", text_columns(section))
    return encode_split(rows, split, f"--data ({data})", run.tokenizer, section, run.label_names)


def _prediction(probabilities: np.ndarray, names: Sequence[str]) -> Prediction:
    best = int(probabilities.argmax())
    scores = {name: float(p) for name, p in zip(names, probabilities, strict=True)}
    return Prediction(names[best], float(probabilities[best]), scores)

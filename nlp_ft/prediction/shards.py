"""Divides a prediction among processes, by chunks in turn; the finished chunks of all are joined by resuming it."""

from datetime import timedelta

import torch
from accelerate import PartialState

from nlp_ft.environment import is_on, launching
from nlp_ft.errors import DataError
from nlp_ft.prediction.kept import discard, shared_parts
from nlp_ft.prediction.predict import predict_to_file, predicted_columns, progress
from nlp_ft.prediction.trained_run import Source, TrainedRun, counted_from
from nlp_ft.training.agreement import errors_of_all

LONGEST_WAIT = timedelta(days=1)
"""Time that a launched process waits for a slower one; one that has died is noticed at once."""


def predict_shard(
    run: TrainedRun, source: Source, output: str, shard: tuple[int, int], *, probabilities: bool = False
) -> int:
    """Predict one shard of the inputs into the folder `OUTPUT.partial`, which all shards share.

    `predict_to_file` with `resume` then writes the output, and predicts whatever is missing. A shard that was stopped
    goes on.

    Args:
        run: a run, from `load_run`.
        source: all inputs, the same for every shard.
        output: path of the file that will be written.
        shard: (k, n) for the k-th of n shards: the chunks k, k + n, k + 2n, ...
        probabilities: see `predict_to_file`.

    Returns:
        The number of inputs of the shard.

    Raises:
        DataError: there is no input, or one cannot be read or predicted, or the disk is full.
        RunFolderError: another process has this shard, or writes the output; or the folder holds another prediction.
    """
    number, count = shard
    inputs_of_all = inputs_of_shard = 0
    with (
        shared_parts(run, source, output, shard, probabilities=probabilities) as parts,
        progress(run, source) as bar,
    ):
        for chunk, (inputs, _) in enumerate(run.read(source)):
            inputs_of_all += len(inputs)
            if chunk % count == number - 1:
                with counted_from(inputs_of_all - len(inputs)):
                    predicted_columns(run, inputs, probabilities, parts, chunk, bar.update)
                inputs_of_shard += len(inputs)
            else:
                bar.update(len(inputs))
        if not inputs_of_all:
            raise DataError(f"predict needs one {run.input_name} or more, got none")
    return inputs_of_shard


def predict_launched(
    run: TrainedRun,
    source: Source,
    output: str,
    *,
    probabilities: bool = False,
    min_confidence: float | None = None,
    resume: bool = False,
) -> int:
    """Predict to a file with all processes of a launch; collective. See `predict_to_file`; other processes return 0."""
    cpu = is_on("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    with launching():
        state = PartialState(cpu=cpu, timeout=LONGEST_WAIT)
    with errors_of_all(state):
        if state.is_main_process and not resume:
            discard(output)
    with errors_of_all(state):
        shard = (state.process_index + 1, state.num_processes)
        predict_shard(run, source, output, shard, probabilities=probabilities)
    state.destroy_process_group()
    if not state.is_main_process:
        return 0
    return predict_to_file(run, source, output, probabilities=probabilities, min_confidence=min_confidence, resume=True)

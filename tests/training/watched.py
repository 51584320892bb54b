"""Runs of nlp_ft with every step watched, in this process or in several that torchrun starts.

A step leaves a line in `OUTPUT_DIR.steps-RANK`: what trains, the rates, and a hash of all weights and buffers after
it. What is in `checkpoints` at the end of the run is kept as `OUTPUT_DIR.checkpoints`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState

from nlp_ft.recipe.loader import load_recipe
from nlp_ft.training import loop
from nlp_ft.training.agreement import weights_hash
from nlp_ft.training.run import train
from nlp_ft.training.run_folder import RunFolder

ROOT = Path(__file__).parents[2]


def watched_train(
    file: str, kill_at: int | None = None, keep_wrapper: bool = False, dynamo_backend: str = "no"
) -> None:
    """Train as the recipe says, from the last checkpoint.

    Args:
        file: the recipe.
        kill_at: the process kills itself with signal 9 in the midst of this step.
        keep_wrapper: leave DistributedDataParallel as it is when other layers train, as is usually done.
        dynamo_backend: by which the model is compiled.
    """
    os.environ["ACCELERATE_DYNAMO_BACKEND"] = dynamo_backend
    recipe = load_recipe(file)
    plain_step, plain_finish = loop.Loop._step, RunFolder.finish

    def step(self: loop.Loop, batches: Any) -> torch.Tensor:
        if self.state.global_step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        total = plain_step(self, batches)
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        line = {
            "step": self.state.global_step,
            "trainable": [name for name, parameter in model.named_parameters() if parameter.requires_grad],
            "rates": {group["name"]: group["lr"] for group in self.optimizer.param_groups},
            "hash": weights_hash(model),
        }
        with Path(f"{recipe.output_dir}.steps-{self.accelerator.process_index}").open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        return total

    def finish(self: RunFolder) -> None:
        shutil.copytree(self.checkpoints, f"{self.final}.checkpoints")
        plain_finish(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Loop, "_step", step)
        patch.setattr(RunFolder, "finish", finish)
        if keep_wrapper:
            patch.setattr(loop, "rewrapped", lambda accelerator, model: model)
        train(recipe, resume=True)


def in_a_process(file: Path, kill_at: int) -> int | None:
    """`watched_train` in a process of its own; its exit code, -9 when it was killed."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_child, args=(dict(os.environ), str(file), kill_at))
    process.start()
    process.join()
    return process.exitcode


def _child(environment: Mapping[str, str], file: str, kill_at: int) -> None:
    os.environ.update(environment)  # the server's own is that of the first test
    watched_train(file, kill_at)


def in_two_processes(files: Mapping[Path, Mapping[str, Any]]) -> subprocess.CompletedProcess[str]:
    """`watched_train` of one recipe after the other, each with its options, on two gloo processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    calls = json.dumps({str(file): options for file, options in files.items()})
    return subprocess.run([*launcher, "-m", __name__, calls], cwd=ROOT, capture_output=True, text=True)


def watched_steps(folder: Path, rank: int = 0) -> list[dict[str, Any]]:
    """The lines of a run; where a step was done again after a kill, the last one."""
    lines = [json.loads(line) for line in Path(f"{folder}.steps-{rank}").read_text().splitlines()]
    return list({line["step"]: line for line in lines}.values())


if __name__ == "__main__":
    for file, options in json.loads(sys.argv[1]).items():
        watched_train(file, **options)
    PartialState().destroy_process_group()

"""Trains cells on a Ray cluster: a task of Ray starts on its machine the process that `--jobs` starts here.

The comparison, and what lies in its folder, is the same; so all machines must see that folder.
"""

import logging
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nlp_ft import __version__
from nlp_ft.errors import MachineError, printable
from nlp_ft.exits import FAILED
from nlp_ft.extras import require_ray
from nlp_ft.screen import say
from nlp_ft.study.process import SECONDS_BETWEEN_LOOKS, TAKEN, Running, start_process

HOW = "start one with `ray start --head`, or name the HOST:PORT of a running one in RAY_ADDRESS"
SECONDS_TO_CONNECT = 5.0
SECONDS_TO_APPEAR = 60.0
"""Time after which a machine sees what another one wrote: NFS keeps for so long what it knows of a folder."""
MOST_LOST = 3
"""So often a cell may lose its worker; it goes on elsewhere from its last checkpoint."""
SAME_DISK = "--output and the data must be on a disk that all machines see under the same path"
SAME_VERSION = "install nlp_ft {} on all machines"
STOPPED = 128 + signal.SIGTERM
PASSED_ON = ("NLP_FT_", "HF_", "OMP_", "MKL_", "CUBLAS_")
"""Begin of the environment variables that hold for the cells, too."""


class Cluster:
    """A running Ray cluster; `start` is for `run_cells`.

    A cell takes one GPU where the cluster has any, and as many CPUs as OMP_NUM_THREADS says, else one.

    Raises:
        MachineError: Ray is not installed, or no cluster can be reached.
    """

    def __init__(self) -> None:
        self.ray = require_ray()
        _connect(self.ray)
        self.lost: Counter[Path] = Counter()
        has = {kind: int(self.ray.cluster_resources().get(kind, 0)) for kind in ("CPU", "GPU")}
        threads = os.environ.get("OMP_NUM_THREADS", "")
        takes = {"CPU": int(threads) if threads.isdigit() else 1, "GPU": min(1, has["GPU"])}
        # Ray tries nothing again: `_Task` counts the lost workers of a cell, and the comparison starts it anew.
        self._train = self.ray.remote(num_cpus=takes["CPU"], num_gpus=takes["GPU"], max_retries=0)(_train)
        num_machines = sum(node["Alive"] for node in self.ray.nodes())
        say(f"Ray cluster: {num_machines} machine(s), {_listed(has)}; a cell takes {_listed(takes)}")

    def start(self, recipe: Path, log: Path) -> Running:
        """Hand the training of a recipe file to the cluster; what it prints goes to the second file."""
        environment = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        text = recipe.read_text(encoding="utf-8")
        train = self._train.options(name=recipe.stem)
        task = train.remote(str(recipe), str(log), os.getcwd(), environment, text, __version__)
        return _Task(self, recipe, log, task)


class _Task:
    """A task of Ray as `Running`."""

    def __init__(self, cluster: Cluster, recipe: Path, log: Path, task: Any) -> None:
        self.cluster, self.recipe, self.log, self.task = cluster, recipe, log, task
        self.code: int | None = None

    def poll(self) -> int | None:
        ended, _ = self.cluster.ray.wait([self.task], timeout=0)
        return self.wait() if ended else None

    def terminate(self) -> None:
        self.cluster.ray.cancel(self.task)

    def wait(self) -> int:
        if self.code is None:
            self.code = self._wait()
        return self.code

    def _wait(self) -> int:
        errors, folder = self.cluster.ray.exceptions, self.recipe.with_suffix("")
        try:
            code: int | str = self.cluster.ray.get(self.task)
        except errors.TaskCancelledError:  # before it began
            return STOPPED
        except errors.RayTaskError as error:
            why = str(error).strip().rpartition("\n")[2]  # of the worker's traceback
            return self._failed(f"a worker cannot start it: {why}; {SAME_VERSION.format(__version__)}")
        except (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError) as error:
            return self._lost(str(error).partition("\n")[0])
        if isinstance(code, str):
            return self._failed(code)
        if code == -signal.SIGKILL:
            return self._lost("its process was killed, such as for lack of memory")
        if code == 0 and not _appears(folder):
            return self._failed(f"a worker has trained it, but {folder} is not found here; {SAME_DISK}")
        return code

    def _lost(self, why: str) -> int:
        """Count a lost worker. What it began may go on until its checkpoint is written, so the folder may be taken."""
        self.cluster.lost[self.recipe] += 1
        if self.cluster.lost[self.recipe] <= MOST_LOST:
            return TAKEN
        return self._failed(f"it has lost its worker {MOST_LOST + 1} times, at last because: {why}")

    def _failed(self, why: str) -> int:
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(f"error: {printable(why)}\n")
        return FAILED


def _listed(resources: Mapping[str, int]) -> str:
    return " and ".join(f"{number} {kind}{'s' * (number != 1)}" for kind, number in resources.items() if number)


def _connect(ray: Any) -> None:
    """Connect to the cluster of RAY_ADDRESS, or else to the one on this machine. Raises: MachineError."""
    address, before = _address(), signal.getsignal(signal.SIGTERM)
    if "://" in address:
        raise MachineError(f"RAY_ADDRESS: {address} is that of a Ray client, which shares no disk; {HOW}")
    try:
        if ":" in address:  # asked first, because Ray tries for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), SECONDS_TO_CONNECT).close()
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        place = f" at {address}" if address else ""
        raise MachineError(f"--executor ray: no Ray cluster is found{place} ({error}); {HOW}") from None
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray sets its own


def _address() -> str:
    """Return what Ray takes: RAY_ADDRESS, else the address of the last `ray start` here; "" if there was none."""
    last = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")  # noqa: S108  # Ray's own place
    return os.environ.get("RAY_ADDRESS") or (last.read_text(encoding="utf-8").strip() if last.exists() else "")


def _appears(folder: Path) -> bool:
    """Wait until this machine sees a folder that another one has made."""
    deadline = time.monotonic() + SECONDS_TO_APPEAR
    while not folder.exists():
        if time.monotonic() > deadline:
            return False
        os.listdir(folder.parent)  # asks the server again
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return True


def _train(recipe: str, log: str, folder: str, environment: dict[str, str], text: str, version: str) -> int | str:
    """Train on the machine of a worker; return the exit code, or what is wrong with the machine.

    Cancelled, it lets the training write a checkpoint. The training ends in the same way if this worker is killed.
    """
    host = socket.gethostname()
    if version != __version__:
        return f"{host} has nlp_ft {__version__}; {SAME_VERSION.format(version)}"
    try:
        os.chdir(folder)
        seen = Path(recipe).read_text(encoding="utf-8")
    except OSError:
        seen = ""
    if seen != text:
        return f"{host} does not see {Path(folder, recipe)}; {SAME_DISK}"
    os.environ.update(environment)
    process = _started(Path(recipe), Path(log))
    try:
        while process.poll() is None:
            time.sleep(SECONDS_BETWEEN_LOOKS)
    except KeyboardInterrupt:
        process.terminate()
    return process.wait()


def _started(recipe: Path, log: Path) -> Running:
    """Start the process as from this light module, or it would import the main program of a worker, and Ray with it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = sys.modules[__name__]
    try:
        return start_process(recipe, log)
    finally:
        sys.modules["__main__"] = main

"""Kill tiny runs at random moments, go on each time, and compare the result with a run that nothing stopped.

A run is stopped up to three times, by signal 9 or SIGTERM: at a random change of a file (which lies between tokenizing,
caches, checkpoints, the last save and the renames) or after a random time (mostly within a step); with or without
--overwrite of a finished run, on one process or two (both killed, or one). Prints JSON: signals sent, counted by what
was going on, and every difference found. Exits with 1 if there is one.

    python scripts/bench/kill_and_resume.py                                # 100 kills and 30 SIGTERM
    python scripts/bench/kill_and_resume.py --kills 8 --terms 4 --seed 1   # a sample
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

CHANGES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")
PLACES = {  # part of a path -> what was going on, the first that is met
    "datasets_cache": "tokenizing",
    "feature_cache": "cache writing",
    ".replaced-": "overwrite",
    "checkpoints": "checkpoint",
    "run.lock": "lock",
    "run.partial": "folder, metrics and last save",
}
SECONDS_OF_A_RUN = 4.0
LONGEST = 120.0


@dataclass
class Tally:
    """What was sent, and what went wrong."""

    sent: dict[str, Counter[str]] = field(default_factory=lambda: {"SIGKILL": Counter(), "SIGTERM": Counter()})
    exit_codes: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    runs: int = 0


def child(arguments: list[str], environment: dict[str, str], moment: dict[str, Any], log: str) -> None:
    """`nlp-ft train`, which sends itself a signal at a moment; what it was doing goes to `<log>.moment`."""
    os.environ.update(environment)
    import datasets

    datasets.config.HF_DATASETS_CACHE = Path(environment["HF_DATASETS_CACHE"])
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if moment.get("signal"):
        wait_for(moment, Path(log))
    from nlp_ft.cli import main

    main(["train", *arguments])


def wait_for(moment: dict[str, Any], log: Path) -> None:
    """Arrange for the signal: at a change of a file, counted, or after so many seconds."""
    left = [moment["change"]]

    def send(doing: str) -> None:
        left[0] = -1
        handle = os.open(f"{log}.moment", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(handle, doing.encode())
        os.close(handle)
        os.kill(os.getpid(), moment["signal"])

    def on_event(event: str, arguments: tuple[object, ...]) -> None:
        if left[0] <= 0 or event not in CHANGES:
            return
        if event == "open" and not int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR):
            return
        path = str(arguments[0])
        doing = next((name for part, name in PLACES.items() if part in path), None)
        if doing is None and path.endswith("/run"):
            doing = "last rename"
        if doing is None:
            return
        left[0] -= 1
        if left[0] == 0:
            send(doing)

    if moment["change"]:
        sys.addaudithook(on_event)
    else:
        timer = threading.Timer(moment["seconds"], send, ["a step, or between two"])
        timer.daemon = True
        timer.start()


class Harness:
    """Starts runs, sends signals, compares."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.random, self.tally = work, random.Random(seed), Tally()
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["nlp_ft.training.run", "nlp_ft.tasks.text_classification", "lion_pytorch"])
        self.recipe = work / "recipe.yaml"
        self.whole: dict[int, Path] = {}

    def prepare(self) -> None:
        """Model, data and recipe, and the runs that nothing stops."""
        from nlp_ft.recipe.loader import dump_yaml
        from tests.tiny import save_tiny_encoder, tiny_recipe

        save_tiny_encoder(self.work / "encoder")
        values = tiny_recipe(
            self.work,
            self.work / "encoder",
            strategy="gradual",
            training={
                "duration": "8ep",
                "evaluate_every": "5st",
                "checkpoint_every": "4st",
                "per_device_batch_size": 4,
            },
        )
        self.recipe.write_text(dump_yaml(values))
        for processes in (1, 2):
            place = self.work / f"whole{processes}"
            codes = self.start(place, processes, [], {})
            if set(codes) != {0}:
                raise SystemExit(f"the unbroken run ended with {codes}: {(place / 'log0').read_text()[-2000:]}")
            self.whole[processes] = place / "run"

    def start(self, place: Path, processes: int, options: list[str], moment: dict[str, Any]) -> list[int | None]:
        """One start of a run; the exit code of each process."""
        place.mkdir(exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        started: list[BaseProcess] = []
        target = moment.get("process", 0) % processes
        for rank in range(processes):
            environment = {
                "NLP_FT_CACHE": str(place / "feature_cache"),
                "HF_DATASETS_CACHE": str(place / "datasets_cache"),
            }
            if processes > 1:
                environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
                environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
            arguments = [str(self.recipe), f"output_dir={place / 'run'}", *options]
            own = moment if rank == target else {}
            log = str(place / f"log{rank}")
            Path(f"{log}.moment").unlink(missing_ok=True)
            started.append(self.context.Process(target=child, args=(arguments, environment, own, log)))
        for process in started:
            process.start()
        self.wait(started, target, moment)
        return [process.exitcode for process in started]

    def wait(self, started: list[BaseProcess], target: int, moment: dict[str, Any]) -> None:
        """Until all have ended; what a killed process leaves waiting is killed too, as a launcher does."""
        deadline = time.monotonic() + LONGEST
        while any(process.is_alive() for process in started) and time.monotonic() < deadline:
            time.sleep(0.01)
            if started[target].exitcode == -signal.SIGKILL and moment.get("signal") == signal.SIGKILL:
                time.sleep(0.0 if moment["together"] else 0.3)
                break
        for process in started:
            if process.is_alive():
                if time.monotonic() >= deadline:
                    self.tally.differences.append("a process hung")
                process.kill()
            process.join()

    def moment(self, number: int, processes: int) -> dict[str, Any]:
        """A random one: three of four at a change of a file, the others after a time."""
        at_change = self.random.random() < 0.75
        return {
            "signal": number,
            "change": self.random.randrange(1, 260) if at_change else 0,
            "seconds": self.random.uniform(0.1, SECONDS_OF_A_RUN),
            "process": self.random.randrange(processes) if not at_change else 0,
            "together": self.random.random() < 0.5,
        }

    def break_a_run(self, numbers: list[int], processes: int, overwrites: bool) -> None:
        """One run, to its end through as many signals as are in the list (those that meet it)."""
        place = self.work / f"broken{self.tally.runs}"
        self.tally.runs += 1
        before = b""
        if overwrites:
            place.mkdir()
            shutil.copytree(self.whole[3 - processes], place / "run")
            before = (place / "run/model.safetensors").read_bytes()
        options = ["--resume", *(["--overwrite"] if overwrites else [])]
        for number in numbers:
            moment = self.moment(number, processes)
            codes = self.start(place, processes, options, moment)
            said = [file.read_text() for file in place.glob("log?.moment")]
            if said:
                name = signal.Signals(number).name
                self.tally.sent[name][f"{said[0]}, {processes} process(es){', --overwrite' if overwrites else ''}"] += 1
                self.tally.exit_codes[f"{name}: {codes}"] += 1
            if overwrites and not self.is_one_whole_run(place, before, processes):
                return self.differs(place, f"after {number} at {moment} there is no whole run")
            if set(codes) == {0}:
                break
        else:
            codes = self.start(place, processes, options, {})
            if set(codes) != {0}:
                return self.differs(place, f"the last resume ended with {codes}")
        self.compare(place, processes)
        return None

    def is_one_whole_run(self, place: Path, before: bytes, processes: int) -> bool:
        """The old run or the new one is under the name, or will be with the next start."""
        new = (self.whole[processes] / "model.safetensors").read_bytes()
        places = [place / "run", *place.glob("run.replaced-*"), place / "run.partial"]
        whole = [p for p in places if (p / "summary.json").exists() and (p / "model.safetensors").exists()]
        return any((p / "model.safetensors").read_bytes() in (before, new) for p in whole)

    def compare(self, place: Path, processes: int) -> None:
        """Weights and metrics to the bit, and nothing left behind."""
        for file in ("model.safetensors", "metrics.jsonl"):
            if (place / "run" / file).read_bytes() != (self.whole[processes] / file).read_bytes():
                return self.differs(place, f"{file} differs")
        if {f.name for f in (place / "run").iterdir()} != {f.name for f in self.whole[processes].iterdir()}:
            return self.differs(place, "other files than those of the unbroken run")
        left = {f.name for f in place.glob("run*")} - {"run"}
        if left:
            return self.differs(place, f"left behind: {left}")
        shutil.rmtree(place)
        return None

    def differs(self, place: Path, what: str) -> None:
        """Keep it for a look."""
        log = place / "log0"
        end = log.read_text()[-600:] if log.exists() else ""
        self.tally.differences.append(f"{place.name}: {what}: {end}")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--terms", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(Path(__file__).parents[2]))
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        harness = Harness(work, options.seed)
        harness.prepare()
        sent = harness.tally.sent
        while any(sent[name].total() < wanted for name, wanted in wanted_of(options).items()):
            missing = [
                number
                for number, wanted in ((signal.SIGKILL, options.kills), (signal.SIGTERM, options.terms))
                if sent[number.name].total() < wanted
            ]
            numbers = [harness.random.choice(missing) for _ in range(3)]
            runs = harness.tally.runs
            harness.break_a_run([int(number) for number in numbers], 1 + runs % 3 // 2, runs % 4 == 3)
            print(
                f"{runs + 1} runs, {sent['SIGKILL'].total()} kills, {sent['SIGTERM'].total()} SIGTERM", file=sys.stderr
            )
        tally = harness.tally
    result = {
        **{name: {"total": counts.total(), **dict(sorted(counts.items()))} for name, counts in tally.sent.items()},
        "exit_codes": dict(tally.exit_codes),
        "runs": tally.runs,
        "differences": tally.differences,
        "seconds": round(time.perf_counter() - started),
    }
    print(json.dumps(result, indent=2))
    sys.exit(1 if tally.differences else 0)


def wanted_of(options: argparse.Namespace) -> dict[str, int]:
    """Signal -> how many are wanted."""
    return {"SIGKILL": options.kills, "SIGTERM": options.terms}


if __name__ == "__main__":
    main()

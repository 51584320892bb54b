"""Kill a run with signal 9 at random moments, resume it each time, and compare the result with an unbroken run.

Prints one JSON line: the steps at which it was killed, and whether weights and metrics history are equal to the bit.

    python scripts/bench/kill_and_resume.py recipes/quickstart.yaml training.duration=2ep training.checkpoint_every=10st
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nlp_ft.predict import load_run
from nlp_ft.training.agreement import weights_hash


def steps_recorded(folder: Path) -> int:
    """The last step in metrics.jsonl of an unfinished run, 0 without one."""
    file = folder.with_name(folder.name + ".partial") / "metrics.jsonl"
    lines = [line for line in file.read_text().splitlines() if line.endswith("}")] if file.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        whole, broken = Path(temporary) / "whole", Path(temporary) / "broken"
        command = [sys.executable, "-m", "nlp_ft", "train", options.recipe, *options.overrides]
        subprocess.run([*command, f"output_dir={whole}"], check=True, stdout=subprocess.DEVNULL)
        total = json.loads((whole / "summary.json").read_text())["global_step"]
        killed_at = []
        for target in sorted(moments.sample(range(1, total), options.kills)):
            with subprocess.Popen(
                [*command, f"output_dir={broken}", "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as process:
                while process.poll() is None and steps_recorded(broken) < target - target % 10:
                    time.sleep(0.01)
                time.sleep(moments.random())
                process.send_signal(signal.SIGKILL)
            killed_at.append(steps_recorded(broken))
        subprocess.run([*command, f"output_dir={broken}", "--resume"], check=True, stdout=subprocess.DEVNULL)
        result = {
            "killed_after_the_record_of_step": killed_at,
            "steps": total,
            "weights_equal": weights_hash(load_run(whole).model) == weights_hash(load_run(broken).model),
            "metrics_equal": (whole / "metrics.jsonl").read_text() == (broken / "metrics.jsonl").read_text(),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

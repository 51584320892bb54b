"""The lowest versions that `./scripts/test --lowest` installs are those that pyproject.toml admits, all of them."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_dependency_has_a_lowest_version_and_that_one_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    command = [sys.executable, str(ROOT / "scripts" / "lowest.py")]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    pinned = dict(line.split("==") for line in found)
    for requirement in project["dependencies"]:
        name, bound, version = requirement.partition(">=")
        assert bound, f"{requirement} has no lower bound"
        assert pinned[name] == version
    assert "torchvision" in pinned

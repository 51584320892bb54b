"""A Ray cluster of two CPUs on this machine, for the tests that start one."""

import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'nlp-ft[ray]'")


@contextmanager
def ray_cluster() -> Iterator[dict[str, str]]:
    """Yield the environment in which a driver finds the cluster."""
    # Ray lays its sockets there, and their paths must be short.
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        # Whether Ray (2.60) wants a token depends, unless it is told, on what earlier clusters left in the home folder.
        access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        settings = {"RAY_TMPDIR": folder, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
        common = {**os.environ, **settings, **access}
        options = ["--num-cpus", "2", "--port", "0", "--node-ip-address", "127.0.0.1", "--include-dashboard", "false"]
        head = subprocess.Popen(
            [Path(sys.executable).with_name("ray"), "start", "--head", "--block", *options],
            env=common,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert head.stdout
        try:
            addresses = (re.search(r"--address='(\S+)'", line) for line in head.stdout)
            [address] = next(found for found in addresses if found).groups()
            yield {**common, "RAY_ADDRESS": address}
        finally:
            head.terminate()
            head.communicate()

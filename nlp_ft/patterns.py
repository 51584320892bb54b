"""A time limit for regular expressions that a user wrote: one that backtracks can take forever."""

import json
import subprocess
import sys
from collections.abc import Sequence

SECONDS = 10
"""Time limit for all patterns on all texts together."""
# Python's `re` holds the interpreter while it searches: only a search in another process can be stopped.
_SEARCH = """
import json, re, sys
patterns, texts = json.load(sys.stdin)
for pattern in patterns:
    for text in texts:
        re.search(pattern, text)
    print(flush=True)
"""


def endless_pattern(patterns: Sequence[str], texts: Sequence[str], seconds: float = SECONDS) -> str | None:
    """The first pattern whose search in the texts does not end in time, or None if all searches end.

    Args:
        patterns: valid regular expressions.
        texts: each pattern is searched in all of these.
        seconds: time limit for all searches together.
    """
    # A pattern with one repetition takes at most the square of the length, so it needs no trial.
    patterns = [pattern for pattern in patterns if sum(char in "*+{?" for char in pattern) > 1]
    if not patterns:
        return None
    command = [sys.executable, "-I", "-S", "-c", _SEARCH]
    given = json.dumps([patterns, list(texts)]).encode()
    try:
        subprocess.run(command, input=given, stdout=subprocess.PIPE, timeout=seconds, check=True)  # noqa: S603
    except subprocess.TimeoutExpired as expired:
        return patterns[(expired.stdout or b"").count(b"\n")]
    return None

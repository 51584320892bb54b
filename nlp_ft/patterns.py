"""Regular expressions that somebody else wrote, tried within a time limit: one that backtracks can take for ever."""

import json
import subprocess
import sys
from collections.abc import Sequence

SECONDS = 10
"""For all patterns on all texts; it takes a hundredth of that as a rule."""
# Python's `re` holds the interpreter while it searches, so that only another process can be stopped.
_SEARCH = """
import json, re, sys
patterns, texts = json.load(sys.stdin)
for pattern in patterns:
    for text in texts:
        re.search(pattern, text)
    print(flush=True)
"""


def endless_pattern(patterns: Sequence[str], texts: Sequence[str], seconds: float = SECONDS) -> str | None:
    """The first pattern whose search in the texts does not end in time; None where all end.

    Args:
        patterns: valid regular expressions.
        texts: what each is searched in.
        seconds: for all together.
    """
    # One repetition alone takes at most the square of the length.
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

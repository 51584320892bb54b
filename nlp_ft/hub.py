"""Finds out in a few seconds whether the Hugging Face Hub answers, before anything is loaded from it.

Its client tries again for half a minute for every file that it looks for, which adds up to minutes without a network.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import get_session, validate_repo_id

from nlp_ft.errors import ModelError

LIMIT = 4.0
"""Seconds in which the Hub must answer; HF_HUB_ETAG_TIMEOUT sets others. The answer may be any, even an error."""
SECONDS_KNOWN = 60.0
"""Seconds for which an answer is believed, so that a command asks once."""
_known: dict[str, tuple[float, str]] = {}


def place_of_model(location: str, revision: str | None) -> str:
    """Find where to load a model from: a Hub id becomes its folder in the cache if the Hub does not answer.

    Args:
        location: a folder or a Hub id.
        revision: branch, tag or commit of a Hub model.

    Returns:
        The location, or the folder.

    Raises:
        ModelError: the model is not in the cache, and the Hub does not answer or may not be asked.
    """
    if not is_hub_id(location):
        return location
    problem = "" if constants.HF_HUB_OFFLINE else _problem_of_hub()
    if not problem and not constants.HF_HUB_OFFLINE:
        return location
    cached = try_to_load_from_cache(location, "config.json", revision=revision)
    if isinstance(cached, str):
        return str(Path(cached).parent) if problem else location
    known = f"it is no folder here, and not in the cache of the Hugging Face Hub ({constants.HF_HUB_CACHE})"
    advice = "name a folder or package:NAME/PATH"
    if not problem:
        raise ModelError(
            f"model.name: {location}: {known}, which alone is read while HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE "
            f"to download it, or {advice}"
        )
    raise ModelError(
        f"model.name: {location}: {known}; the Hub cannot be reached, so this id cannot be checked either: {problem}. "
        "Check the id and the network. Without a network, HF_HUB_OFFLINE=1 reads models of the cache at once; "
        f"otherwise {advice}"
    )


def is_hub_id(location: str) -> bool:
    """Whether a location is the id of a model or data set of the Hub, and no file or folder here."""
    try:
        validate_repo_id(location)
    except HFValidationError:
        return False
    return not os.path.exists(location)


@contextmanager
def offline_if_unreachable() -> Iterator[str]:
    """Let the Hub's client read its cache alone inside the `with` block, if the Hub does not answer.

    Yields:
        Why it does not answer; an empty text if it does, or if HF_HUB_OFFLINE is set.
    """
    import datasets

    problem = "" if constants.HF_HUB_OFFLINE else _problem_of_hub()
    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if problem:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield problem
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _problem_of_hub() -> str:
    """Say why the Hub cannot be reached; an empty text if it answers."""
    asked, problem = _known.get(constants.ENDPOINT, (-SECONDS_KNOWN, ""))
    if time.monotonic() - asked > SECONDS_KNOWN:
        problem = _ask(constants.ENDPOINT)
        _known[constants.ENDPOINT] = (time.monotonic(), problem)
    return problem


def _ask(endpoint: str) -> str:
    limit = constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else LIMIT
    found = [f"{endpoint} did not answer within {limit:g} s (HF_HUB_ETAG_TIMEOUT sets another limit)"]

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=limit + 1)  # later than ours, so that one message alone tells of it
            found.append("")
        except Exception as error:  # the client's errors have no type in common, and a wrong URL raises others
            found.append(f"{endpoint}: {' '.join(str(error).split()) or type(error).__name__}")

    # A thread, because no timeout of the client ends a slow look-up of the name, and each address has its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(limit)
    return found[-1]

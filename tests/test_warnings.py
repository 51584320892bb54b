"""What pyproject.toml makes of the warnings about outdated calls."""

import pytest


def warn(module: str, category: str) -> None:
    """A warning as Python gives it for a line of that module."""
    exec(f"import warnings; warnings.warn('old', {category})", {"__name__": module})  # noqa: S102


@pytest.mark.parametrize("category", ["DeprecationWarning", "FutureWarning", "PendingDeprecationWarning"])
def test_an_outdated_call_is_an_error_in_our_code_and_nothing_in_a_library(category: str) -> None:
    for module in ("nlp_ft", "nlp_ft.training.loop", "tests.tiny"):
        with pytest.raises(Warning, match="old"):
            warn(module, category)
    for module in ("transformers.trainer", "nlp_ft_of_others"):
        warn(module, category)

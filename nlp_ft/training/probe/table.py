"""Writes what a probe found as a table."""

from typing import Any

from nlp_ft.tables import terminal_width, text_table


def probe_table(facts: dict[str, Any]) -> str:
    """Write the cross-validated score of each layer, and mark the one that was chosen."""
    metric = facts["metric"].replace("_", " ")
    rows = [
        [
            one["name"],
            "-" if one["score"] is None else f"{one['score']:.4f}",
            "-" if one["standard_error"] is None else f"{one['standard_error']:.4f}",
            "chosen" if one["chosen"] else "",
        ]
        for one in facts["layers"]
    ]
    return text_table(
        ["features", f"{metric} in cross-validation", "standard error", ""], rows, {1, 2}, terminal_width()
    )

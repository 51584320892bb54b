"""What `nlp-ft export` does: it exports a run and prints what that costs and gains."""

import argparse

from nlp_ft.errors import Interrupted, printable
from nlp_ft.exits import INTERRUPTED
from nlp_ft.export.check import Check
from nlp_ft.export.export import export_run
from nlp_ft.prediction.exports import default_place
from nlp_ft.tables import text_table, wrapped
from nlp_ft.training.verdict.facts import points, shown


def export(options: argparse.Namespace) -> int:
    """Run `nlp-ft export`; return the exit code."""
    output = options.output or default_place(options.run, options.to, options.int8)
    try:
        check = export_run(
            options.run,
            output,
            options.to,
            int8=options.int8,
            max_loss=options.max_loss,
            data=options.data,
            overwrite=options.overwrite,
        )
    except KeyboardInterrupt:
        raise Interrupted("interrupted; nothing was written", INTERRUPTED) from None
    print(f"{report(check, options.to + (' int8' if options.int8 else ''))}\n")
    print(f"export: {printable(output)}")
    print(wrapped(f'next: nlp-ft predict {printable(output)} "a text of your own"'))
    return 0


def report(check: Check, title: str) -> str:
    """Write a comparison for people to read."""
    rows = [
        ["torch", shown(check.metric, check.before), f"{check.rows_per_second_before:,.0f}"],
        [title, shown(check.metric, check.after), f"{check.rows_per_second_after:,.0f}"],
    ]
    low, high = check.interval
    return "\n".join(
        [
            text_table(["engine", check.metric.replace("_", " "), "rows/s"], rows, (1, 2)),
            wrapped(
                f"on {check.rows:,} labelled rows: {100 * check.changed:.1f}% of the predictions change; the score by "
                f"{points(check.metric, check.after - check.before)} (95 % interval {shown(check.metric, low)} to "
                f"{shown(check.metric, high)}); logits by at most {check.largest_difference:.2g}"
            ),
        ]
    )

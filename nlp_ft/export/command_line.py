"""What `nlp-ft export` and `nlp-ft push` do, and what they print."""

import argparse
import shlex

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
    print(wrapped(f'next: nlp-ft predict {printable(shlex.quote(output))} "a text of your own"'))
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


def push(options: argparse.Namespace) -> int:
    """Run `nlp-ft push`; return the exit code."""
    from nlp_ft.export.hub_files import CARD, hub_files
    from nlp_ft.export.push import push_files, require_repo_id
    from nlp_ft.prediction.predict import load_run

    require_repo_id(options.repo)
    files = hub_files(options.run, options.repo, options.license)
    # What cannot be loaded here cannot be loaded there either. Code of the model's own is not run for it.
    if not any(name.endswith(".py") for name in files.contents):
        load_run(options.run)
    rows = [[printable(name), f"{size / 1000:,.0f}"] for name, size in files.sizes().items()]
    print(text_table(["file", "kB"], [*rows, ["together", f"{sum(files.sizes().values()) / 1000:,.0f}"]], (1,)))
    print(wrapped(f"stays here: {', '.join(map(printable, files.left_out)) or 'nothing'}\n"))
    if options.dry_run:
        content = files.contents[CARD]
        assert isinstance(content, bytes)
        print(printable(content.decode(), keep="\n"))
        return 0
    url, is_private = push_files(files, options.repo, public=options.public)
    print(f"model: {printable(url)} ({'private' if is_private else 'public'})")
    return 0

"""`fgfast doctor`."""

from __future__ import annotations

import sys

import click

from fgfast.cli.frame import verbose_option
from fgfast.terminal import say, say_json


@click.command()
@click.option("--verify", is_flag=True, help="Also checks everything, which may take minutes.")
@click.option("--json", "as_json", is_flag=True, help="Prints the facts as JSON.")
@verbose_option
def doctor(verify: bool, as_json: bool) -> None:
    """Report what this machine has, what fgfast would use of it, and what would improve it.

    With --verify, every package is imported, two layers are run on every device and in every backend, weights are
    hashed, and exported graphs are run; the exit code is 1 when something that is installed does not work. Paste the
    report into bug reports.
    """
    import dataclasses
    import json

    from fgfast.doctor import checks, examine, text

    facts, found = examine(), []
    echo = say if not as_json else lambda line: None
    echo(text.report(facts))
    if verify:
        echo("\nChecks")
        for check in checks.run(facts):
            found.append(check)
            echo(text.check_line(check))
        echo(f"  {text.checks_summary(found)}")
    if as_json:
        results = [dataclasses.asdict(check) for check in found] if verify else None
        say_json(json.dumps({**facts, "checks": results}, indent=2))
    sys.exit(any(check.state == "failed" for check in found))

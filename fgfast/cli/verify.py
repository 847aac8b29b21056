"""`fgfast verify`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fgfast.cli.frame import EXIT_SOME_FAILED
from fgfast.terminal import line, say, say_json


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--root", type=click.Path(path_type=Path), help="Names the data set's folder, where it has moved.")
@click.option("--json", "as_json", is_flag=True, help="Prints the result as JSON.")
def verify(out: Path, root: Path | None, as_json: bool) -> None:
    """Check that an output still holds what was written.

    OUT is the output folder of a run. Every file in it and every source image is read, hashed and compared with the
    ledger; nothing is changed. The same convert command makes again what is missing, damaged or changed. Exit codes:
    0 all intact, 3 something differs or the last run did not end cleanly, 2 wrong usage.
    """
    import json
    from dataclasses import asdict

    from fgfast.pipeline.verify import verify as check

    result = check(out, root)
    kinds = {
        "missing": "written, but no longer there",
        "damaged": "written, but with other content now",
        "changed": "source image changed since",
        "gone": "source image no longer there, or not readable",
    }
    if as_json:
        say_json(json.dumps({**asdict(result), "out": str(out), "root": str(result.root)}, indent=2))
    else:
        for kind, sentence in kinds.items():
            for name in getattr(result, kind):
                say(line(f"{kind:<8} {name}  ({sentence})"))
        if result.gone and not result.root.is_dir():
            say(
                line(
                    f"the data set is not in {result.root}, its place when the run was made, as seen from the output: "
                    "name its new place with --root, here or in the same convert command, which records it"
                )
            )
        if not result.clean:
            say("the last run did not end cleanly; run the same convert command again")
        if result.stale:
            say("people decided about images since the lists were written; run the same convert command again")
        say(f"{result.files:,} files compared: {'all intact' if result.intact else 'see above'}")
    sys.exit(0 if result.intact else EXIT_SOME_FAILED)

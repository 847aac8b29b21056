"""`fgfast review`."""

from __future__ import annotations

from pathlib import Path

import click

from fgfast.cli.frame import verbose_option


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--root", type=click.Path(path_type=Path), help="Names the data set's folder, where it has moved.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, show_default="any that is free", help="Sets the port."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Sets the address that the server listens on.")
@click.option("--no-open", is_flag=True, help="Prints the page's address, but opens no browser.")
@click.option("--read-only", is_flag=True, help="Shows the output, also while another process changes it.")
@click.option(
    "--prepare", type=click.IntRange(0), default=0, metavar="N", help="Encodes the N most doubtful images beforehand."
)
@click.option("--who", default="", show_default="the user's name", help="Names the person, for the decisions.")
@click.option("--list", "listed", is_flag=True, help="Prints the doubtful results, most doubtful first, and ends.")
@click.option("--json", "as_json", is_flag=True, help="Prints them as JSON, with --list.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Prints the N most doubtful ones, with --list.")
@verbose_option
def review(
    out: Path,
    root: Path | None,
    port: int,
    host: str,
    no_open: bool,
    read_only: bool,
    prepare: int,
    who: str,
    listed: bool,
    as_json: bool,
    limit: int | None,
) -> None:
    """Look at doubtful results, and mend them, in a browser.

    OUT is the output folder of a run. The page shows source, mask and result, most doubtful first; what a person
    decides is kept in OUT/fgfast/decisions.sqlite, whatever is run afterwards. The server listens on this machine
    alone, and its printed address opens the page once. Ctrl-C ends it; lists and report are then written. --list
    prints the results that nobody has decided yet, without a server, and changes nothing.
    """
    if listed:
        from fgfast.cli.review_list import print_queue

        print_queue(out, as_json, limit)
        return
    if as_json or limit is not None:
        raise click.UsageError("--json and --limit belong to --list")
    from fgfast.cli.review_server import serve

    serve(
        out,
        root=root,
        host=host,
        port=port,
        open_browser=not no_open,
        read_only=read_only,
        prepare=prepare,
        who=who,
    )

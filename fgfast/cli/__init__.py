"""The command line, one module per command. Little is imported until a command runs, so that --help is fast."""

from __future__ import annotations

import click

from fgfast import __version__
from fgfast.cli.bench import bench
from fgfast.cli.convert import convert
from fgfast.cli.cut import cut
from fgfast.cli.datasets import datasets
from fgfast.cli.doctor import doctor
from fgfast.cli.expand import expand
from fgfast.cli.frame import Commands, verbose_option
from fgfast.cli.masks import masks
from fgfast.cli.models import models
from fgfast.cli.quality import quality
from fgfast.cli.review import review
from fgfast.cli.study import study
from fgfast.cli.verify import verify
from fgfast.export.command import export
from fgfast.terminal import say


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, "--version", prog_name="fgfast")
@verbose_option
def main() -> None:
    """Make foreground-only twins of image-classification data sets."""


for _command in (bench, convert, cut, datasets, doctor, expand, export, masks, models, quality, review, study, verify):
    main.add_command(_command)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script. For bash: eval "$(fgfast completion bash)" in ~/.bashrc."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    say(kind(main, {}, "fgfast", "_FGFAST_COMPLETE").source())

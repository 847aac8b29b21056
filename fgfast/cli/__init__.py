"""The command line, one module per command. A module is imported when its command is named, so that --help is fast."""

from __future__ import annotations

import click

from fgfast import __version__
from fgfast.cli.frame import LazyCommands, LazyGroup, verbose_option
from fgfast.terminal import say

# Command -> its module, and what `fgfast --help` says of it: the first paragraph of its help, which a test compares.
_COMMANDS = {
    "bench": (
        "fgfast.cli.bench",
        "Measure this machine. Without a command, measure everything in a few minutes and print a verdict.",
    ),
    "convert": (
        "fgfast.cli.convert",
        "Make the foreground-only twin of a data set, which is named as the argument or by --dataset.",
    ),
    "cut": (
        "fgfast.cli.cut",
        "Cut the subject out of images: files, http or https addresses, or - for standard input.",
    ),
    "datasets": ("fgfast.cli.datasets", "List the known data sets and where each was found."),
    "doctor": (
        "fgfast.cli.doctor",
        "Report what this machine has, what fgfast would use of it, and what would improve it.",
    ),
    "expand": (
        "fgfast.cli.expand",
        "Make a further data set from the masks of a finished run, the output folder of fgfast convert.",
    ),
    "export": (
        "fgfast.export.command",
        "Write a model as ONNX, optionally as a TensorRT engine as well, and compare it with PyTorch.",
    ),
    "masks": ("fgfast.cli.masks", "Hand masks over to other annotation tools, and take them back."),
    "models": ("fgfast.cli.models", "List, fetch and verify the weights of the models."),
    "quality": ("fgfast.cli.quality", "Compare the masks of a run with official ones."),
    "review": ("fgfast.cli.review", "Look at doubtful results, and mend them, in a browser."),
    "study": ("fgfast.cli.study", "Train classifiers with and without background, and show what it did."),
    "verify": ("fgfast.cli.verify", "Check that an output still holds what was written."),
}


@click.group(
    cls=LazyGroup,
    commands=LazyCommands(_COMMANDS),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, "--version", prog_name="fgfast")
@verbose_option
def main() -> None:
    """Make foreground-only twins of image-classification data sets."""


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script. For bash: eval "$(fgfast completion bash)" in ~/.bashrc."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    say(kind(main, {}, "fgfast", "_FGFAST_COMPLETE").source())

"""Shared by all commands: suggestions for misspelt names, errors as exit codes, -v, completion of names."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import click

from fgfast.terminal import Formatter, Group, note, report

EXIT_SOME_FAILED = 3


class Commands(Group):
    """A group that suggests the nearest command for a misspelt one, and turns fgfast's errors into exit codes."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"no command named {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click handles them
        except Exception as error:
            ctx.exit(report(error))
        except KeyboardInterrupt:
            note("stopped")
            ctx.exit(130)


class LazyCommands(MutableMapping[str, click.Command]):
    """Commands by name; the module of one is imported when the command itself is asked for.

    Args:
        sources: command -> the module that holds it under its own name, and the first paragraph of its help.
    """

    def __init__(self, sources: Mapping[str, tuple[str, str]]) -> None:
        self._sources = sources
        self._commands: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._commands:
            module, _ = self._sources[name]
            self._commands[name] = getattr(importlib.import_module(module), name)
        return self._commands[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"the command {name} cannot be removed")

    def __iter__(self) -> Iterator[str]:
        return iter({**self._sources, **self._commands})

    def __len__(self) -> int:
        return len({**self._sources, **self._commands})

    def __contains__(self, name: object) -> bool:
        return name in self._sources or name in self._commands

    def listed(self, name: str) -> click.Command:
        """Return a command with the same first paragraph of its help, without an import."""
        if name in self._sources:
            return click.Command(name, help=self._sources[name][1])
        return self._commands[name]


class LazyGroup(Commands):
    """A group of `LazyCommands`, whose help lists them without importing them."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, as click does."""
        assert isinstance(self.commands, LazyCommands)
        names = self.list_commands(ctx)
        limit = formatter.width - 6 - max(map(len, names))  # click's own margins
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.commands.listed(name).get_short_help_str(limit)) for name in names])


def _log(ctx: click.Context, param: click.Parameter, verbose: int) -> int:
    """Set up logging; -v may be given before the command or after it."""
    if verbose or (param.name == "verbose" and ctx.parent is None):
        level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
        text = "%(levelname)s %(name)s: %(message)s"
        logging.basicConfig(level=level, stream=sys.stderr, force=True)
        for handler in logging.getLogger().handlers:
            handler.setFormatter(Formatter(text))
        logging.captureWarnings(True)
        # Pillow warns about odd metadata in valid images; an image that fails has its own outcome.
        for name in ("py.warnings", "PIL"):
            logging.getLogger(name).setLevel(logging.WARNING if verbose else logging.CRITICAL)
    return verbose


verbose_option = click.option(
    "-v", "--verbose", count=True, callback=_log, expose_value=False, help="Logs more; twice for debugging."
)


def dataset_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from fgfast.datasets import names

    return [name for name in names() if name.startswith(incomplete)]


def choices(names: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Completion by these names. The value is checked later, with a better message than click's."""
    return lambda ctx, param, incomplete: [name for name in names if name.startswith(incomplete)]

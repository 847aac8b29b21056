"""Options of commands that are settings: their names, types, defaults and help come from `fields(Settings)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

import click

from fgfast.background import Background
from fgfast.cli.frame import choices
from fgfast.config import Settings
from fgfast.setting import WHOLE, Setting

F = TypeVar("F", bound=Callable[..., Any])


def settings_options(names: Sequence[str] = (), **defaults: Any) -> Callable[[F], F]:
    """Options for these settings, in the order of Settings; by default for all of them.

    Args:
        names: of settings.
        defaults: setting -> default that replaces that of Settings.
    """
    chosen = [f for f in fields(Settings) if not names or f.name in names]

    def decorate(command: F) -> F:
        for f in reversed(chosen):
            command = setting_option(f, defaults.get(f.name, f.default))(command)
        return command

    return decorate


def setting_option(f: Field[Any], default: Any) -> Callable[[F], F]:
    """Return the option of one setting; a name that Python reserves ends in an underscore, which the option has not."""
    setting: Setting = f.metadata["setting"]
    name, kind = f"--{f.name.rstrip('_').replace('_', '-')}", str(f.type)
    if kind == "bool":
        return click.option(name, f.name, is_flag=True, help=setting.help)
    if isinstance(default, Background):
        default = default.describe()
    assert default is not MISSING
    known = tuple(setting.choices()) if setting.choices else ()
    return click.option(
        name,
        f.name,
        default=default,
        type=_type(kind, setting),
        show_default=setting.unset or default is not None,
        help=setting.help + (f" One of: {', '.join(known)}." if known else ""),
        shell_complete=choices(known),
    )


def _type(kind: str, setting: Setting) -> click.ParamType[Any]:
    """Return the type of an option; numbers show their bounds in the help."""
    if kind in WHOLE:
        least, most = (None if bound is None else int(bound) for bound in (setting.least, setting.most))
        return click.IntRange(least, most)
    return click.FloatRange(setting.least, setting.most) if kind == "float" else click.STRING


def settings_of(options: dict[str, Any], **more: Any) -> Settings:
    """The settings that the options of a command give; those that are absent keep their defaults.

    Args:
        options: name -> value; options that are not settings are ignored.
        more: settings that are not options.
    """
    given = {f.name: options[f.name] for f in fields(Settings) if f.name in options}
    return Settings(**given, **more)

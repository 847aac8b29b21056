"""The setting `background`: what replaces the background of an image."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from fgfast.errors import UnknownNameError, UsageError
from fgfast.files import read_regular

BackgroundKind = Literal["colour", "transparent", "blur", "image"]

# ImageNet's channel means (0.485, 0.456, 0.406 in torchvision and timm) in 8 bits, which normalisation maps to zero.
IMAGENET_MEAN = (124, 116, 104)

_NAMED_COLOURS = {"black": (0, 0, 0), "white": (255, 255, 255), "mean": IMAGENET_MEAN}


@dataclass(frozen=True, slots=True)
class Background:
    """What replaces the background.

    Attributes:
        kind: "colour", "transparent", "blur" (the image itself, blurred) or "image" (another image, scaled to cover).
        colour: R, G, B in 0..255; used by "colour".
        path: file of the other image; used by "image".
        digest: SHA-256 of that file, by which a resumed run detects that it changed.
    """

    kind: BackgroundKind = "colour"
    colour: tuple[int, int, int] = (0, 0, 0)
    path: Path | None = None
    digest: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(BackgroundKind):
            raise UsageError(
                f"{UnknownNameError('kind of background', str(self.kind), get_args(BackgroundKind))} For a colour or "
                f"a file write fgfast.Background.parse({str(self.kind)!r}), or Settings(background={str(self.kind)!r})"
            )
        if (self.path is None) == (self.kind == "image"):
            raise UsageError(f"a background of kind {self.kind!r} {'needs' if self.path is None else 'has no'} path")
        if self.kind != "colour" and self.colour != (0, 0, 0):
            raise UsageError(f"colour {self.colour} has no effect with a background of kind {self.kind!r}")

    @classmethod
    def parse(cls, text: str) -> Background:
        """Read `black|white|mean|COLOUR|transparent|blur|IMAGE`.

        COLOUR is R,G,B, a colour's name in CSS ("navy"), or one of the other forms of PIL.ImageColor ("#ff0000",
        "rgb(255,0,0)"). A name that is both a colour and a file means the colour; "./navy" is the file.

        Raises:
            UsageError: it is none of these.
        """
        if text in _NAMED_COLOURS:
            return cls(colour=_NAMED_COLOURS[text])
        if text in ("transparent", "blur"):
            return cls(cast(BackgroundKind, text))
        if (colour := _css_colour(text)) is not None:
            return cls(colour=colour)
        if "," in text and not Path(text).exists():
            return cls(colour=_rgb(text))
        path = Path(text).expanduser()
        if not path.is_file():
            raise UsageError(
                f"background {text!r} is neither a name (black, white, mean, transparent, blur, or a colour of CSS) "
                f"nor a colour as R,G,B or #rrggbb nor an image: there is no file {path.absolute()}"
            )
        return cls("image", path=path.absolute(), digest=hashlib.sha256(read_regular(path)).hexdigest())

    @classmethod
    def of(cls, value: object) -> Background:
        """Return a background that is given as a Background, as (R, G, B), or in the words that `parse` reads.

        Raises:
            UsageError: it is none of these.
        """
        if isinstance(value, Background):
            return value
        if isinstance(value, tuple) and len(value) == 3:
            return cls(colour=_rgb(",".join(map(str, value))))
        if isinstance(value, (str, os.PathLike)):
            return cls.parse(str(value))
        raise UsageError(f"background must be a name, a colour (R, G, B), a path or a Background, not {value!r}")

    def describe(self) -> str:
        """The background in one word, or its colour as R,G,B, as stored in run.json."""
        if self.kind == "colour":
            names = {colour: name for name, colour in _NAMED_COLOURS.items()}
            return names.get(self.colour, ",".join(map(str, self.colour)))
        if self.kind == "image" and self.path:
            return f"{self.path.name} (sha256 {self.digest[:16]})"
        return self.kind


def _css_colour(text: str) -> tuple[int, int, int] | None:
    """Read a colour as PIL.ImageColor does; None where it is none.

    Raises:
        UsageError: it has an alpha channel, or begins with # and is no colour.
    """
    from PIL import ImageColor

    try:
        values = ImageColor.getrgb(text)
    except ValueError:
        if text.startswith("#") and not Path(text).exists():
            raise UsageError(f"background {text!r} is no colour: write #rgb or #rrggbb, as in #ff0000") from None
        return None
    if len(values) != 3:
        raise UsageError(
            f"background {text!r} has an alpha channel: write #rrggbb, or transparent for no background at all"
        )
    return values


def _rgb(text: str) -> tuple[int, int, int]:
    values = tuple(int(part) if part.strip().isdecimal() else -1 for part in text.split(","))
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise UsageError(f"background colour {text!r} must be R,G,B with values from 0 to 255, for example 124,116,104")
    return values

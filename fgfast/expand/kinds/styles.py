"""Styles: each image as a drawing or a painting, one data set per style; or redrawn by a model of diffusers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fgfast import ops
from fgfast.background import Background
from fgfast.errors import UnknownNameError, UsageError
from fgfast.expand.diffusion import Diffusion, device_of, model_of, versions
from fgfast.expand.kind import Planned, Product, Request, Subject, option
from fgfast.ops.styles import STYLES, extended, inner
from fgfast.records import Bool, UInt8, plain

ALL = "all"
# The folder of what a model makes.
_BY_MODEL = "model"
# Pixels of a model's image on the longer side: what Stable Diffusion 1.5 was trained with.
_SIDE = 512
_WHITE = np.array([255, 255, 255], np.uint8)


def _by_model(options: Any) -> str:
    return "" if options.model is not None else "without a model"


def _by_filter(options: Any) -> str:
    return "beside a model, which makes the style" if options.model is not None else ""


@dataclass(frozen=True, slots=True)
class Options:
    """How images are restyled."""

    styles: str = option(
        ALL,
        f"Names the styles, separated by commas: {', '.join(STYLES)}; all makes each of them.",
        idle=_by_filter,
    )
    on: str = option(
        "subject",
        "Selects what is shown: the subject alone, on the run's background, or the whole image, restyled.",
        choices=lambda: ("subject", "image"),
    )
    model: str | None = option(
        None,
        "Names a model of diffusers that turns an image into another: a folder, or OWNER/NAME in the cache of the "
        "Hugging Face hub. It takes the place of the filters.",
        unset="filters alone",
    )
    prompt: str = option(
        "a watercolour painting of a {class}",
        "Tells the model what to make; {class} is the class's name.",
        idle=_by_model,
    )
    strength: float = option(
        0.5,
        "Sets how far the model may leave the image: 1 keeps nothing of it.",
        least=0.01,
        most=1,
        idle=_by_model,
    )
    steps: int = option(30, "Sets the number of steps of the model's scheduler.", least=1, most=1000, idle=_by_model)
    guidance: float = option(7.5, "Sets how closely the model follows the prompt.", least=0, most=100, idle=_by_model)
    side: int = option(
        _SIDE,
        "Sets the longer side of the model's image in pixels; it is scaled back afterwards.",
        least=64,
        most=4096,
        idle=_by_model,
    )
    device: str = option(
        "auto",
        "Selects where the model runs: cpu, cuda or cuda:N. auto takes a GPU if torch finds one.",
        idle=_by_model,
    )


@dataclass(frozen=True, slots=True)
class Filters:
    """Applies filters to an image.

    Attributes:
        folders: (style, folder of its data set).
        on: "subject" or "image".
        background: the colour of the background, R G B; None for transparent images.
    """

    folders: tuple[tuple[str, str], ...]
    on: str
    background: tuple[int, int, int] | None

    def __call__(self, subject: Subject) -> Product:
        """Make an image per style."""
        if self.on == "image":
            return Product({folder: STYLES[style](subject.pixels) for style, folder in self.folders})
        if not subject.bits.any():
            return Product(skipped="its mask is empty: there is no subject to draw")
        around = extended(subject.pixels, inner(subject.bits))
        cut = partial(on_background, bits=subject.bits, background=self.background)
        return Product({folder: cut(STYLES[style](around)) for style, folder in self.folders})


@dataclass(frozen=True, slots=True)
class Redrawn:
    """Lets a model redraw an image.

    Attributes:
        folder: of the data set.
        on, background: see `Filters`.
        prompt: with {class} where the class's name belongs.
        thing: what stands there for an image without a class.
        model: the model.
    """

    folder: str
    on: str
    background: tuple[int, int, int] | None
    prompt: str
    thing: str
    model: Diffusion

    def __call__(self, subject: Subject) -> Product:
        """Make the image; where the subject is alone its outline is that of the mask, whatever the model drew."""
        alone = self.on == "subject"
        if alone and not subject.bits.any():
            return Product(skipped="its mask is empty: there is no subject to draw")
        shown = ops.composite(subject.pixels, subject.bits, _WHITE) if alone else subject.pixels
        prompt = self.prompt.replace("{class}", class_name(subject.sample.label) or self.thing)
        seed = int(subject.generator("model").integers(0, 1 << 63))
        made, hidden = self.model.redraw(shown, prompt, seed)
        if hidden:
            return Product(skipped="the model's safety checker hid what it made of the image")
        flags = ("one colour",) if (made == made[0, 0]).all() else ()
        pixels = on_background(made, subject.bits, self.background) if alone else made
        return Product({self.folder: pixels}, flags=flags)


def on_background(pixels: UInt8, bits: Bool, background: tuple[int, int, int] | None) -> UInt8:
    """Return the subject on a colour, (H, W, 3) uint8; without a background, RGBA (H, W, 4)."""
    if background is None:
        return ops.composite(pixels, bits, None, alpha=True)
    return ops.composite(pixels, bits, np.array(background, np.uint8))


def class_name(label: str) -> str:
    """Return a label as words: "001.Black_footed_Albatross" -> "black footed albatross"."""
    return plain(re.sub(r"^(n\d{8}-|\d+\.)", "", label))


def plan(request: Request, options: Options) -> Planned:
    """Plan styles; see `fgfast.expand.kind.Plan`."""
    name = request.twin.dataset.folder
    background, warning = _background(request)
    transparent = options.on == "subject" and background is None
    if options.model is not None:
        return _with_model(request, options, options.model, background, (warning,) * bool(warning))
    chosen = _chosen(options.styles)
    folders = tuple((style, f"{style}/{name}") for style in chosen)
    return Planned(
        step=Filters(folders, options.on, background),
        sets=tuple(folder for _, folder in folders),
        transparent=transparent,
        reasons=(f"styles {', '.join(chosen)}, of {_whole(options)}",),
        warnings=(warning,) if warning and options.on == "subject" else (),
    )


def _whole(options: Options) -> str:
    return "the subject alone" if options.on == "subject" else "the whole image"


def _chosen(text: str) -> tuple[str, ...]:
    """Return the styles that a text names, in the order of the table.

    Raises:
        UnknownNameError: one is not known.
        UsageError: it names none.
    """
    named = {word.strip() for word in text.split(",")} - {""}
    for word in sorted(named - {ALL, *STYLES}):
        raise UnknownNameError("style", word, (ALL, *STYLES))
    if not named:
        raise UsageError(f"styles names none: give some of {', '.join(STYLES)}, or all")
    return tuple(style for style in STYLES if ALL in named or style in named)


def _background(request: Request) -> tuple[tuple[int, int, int] | None, str]:
    """Return the colour of the run's background, None where it is transparent, and a warning where it has no colour."""
    described = str(request.twin.settings.get("background", "black"))
    if described == "transparent":
        return None, ""
    try:
        found = Background.parse(described)
        if found.kind == "colour":
            return found.colour, ""
    except UsageError:  # the name of an image, with its digest
        pass
    return (0, 0, 0), f"the run's background, {described}, has no colour: here it is black"


def _with_model(
    request: Request,
    options: Options,
    name: str,
    background: tuple[int, int, int] | None,
    warnings: tuple[str, ...],
) -> Planned:
    if round(options.steps * options.strength, 6) < 1:
        raise UsageError(
            f"strength {options.strength:g} of {options.steps} steps is less than one step: the model would do "
            "nothing. Give more steps, or more strength"
        )
    model = model_of(name)
    subject = request.twin.dataset.subject
    folder = f"{_BY_MODEL}/{request.twin.dataset.folder}"
    diffusion = Diffusion(
        str(model.folder), options.device, options.strength, options.steps, options.guidance, options.side
    )
    return Planned(
        step=Redrawn(folder, options.on, background, options.prompt, subject[0] if subject else "thing", diffusion),
        fingerprint={"model": model.digest, **versions()},
        sets=(folder,),
        transparent=options.on == "subject" and background is None,
        reasons=(f"model {name} ({model.digest[:12]}), prompt {options.prompt!r}, of {_whole(options)}",),
        warnings=warnings,
        workers=None if device_of(options.device) == "cpu" else 1,  # each would hold the model in the GPU's memory
    )

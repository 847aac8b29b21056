"""Captions of subjects: questions about cut-out, crop and whole image, for any model, or answered by one.

Without a model, the images and the questions are written, to be sent elsewhere. With one, each row of the table holds
the answer: it lies in the ledger with its sample, so that a run that is stopped and resumed does not ask again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fgfast.errors import MissingExtraError, UsageError
from fgfast.expand import caption_files, caption_server
from fgfast.expand.caption_server import Server
from fgfast.expand.caption_text import Answer, plain
from fgfast.expand.caption_views import BACKGROUNDS, VIEWS, view
from fgfast.expand.held import Held
from fgfast.expand.kind import NOTHING, Planned, Product, Request, Subject, Table, option
from fgfast.files import read_regular
from fgfast.io.encode import encode
from fgfast.models.image_text import ImageTextModel, is_cached
from fgfast.records import UInt8
from fgfast.web import is_url

QUESTION = "Describe the subject of this image in one sentence."
# Of the images that are shown: high enough that JPEG adds nothing that a caption would mention.
_QUALITY = 95
# Seconds that all threads of the worker may wait for their turns: not all of an image's time, for some ask again.
_WAITING = caption_server.PATIENCE / 2
# Bytes of a file of a model that is hashed whole.
_MOST_HASHED = 1 << 26
# A name on the Hugging Face hub: owner/name.
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+\Z")


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked, and who answers."""

    views: str = option("all", "Selects what is shown of each image.", choices=lambda: ("all", *VIEWS))
    question: str = option(QUESTION, "Sets the question.")
    name_class: bool = option(False, "Tells the class in the question.")
    background: str = option("white", "Sets the colour around the cut-out.", choices=lambda: tuple(BACKGROUNDS))
    longest: int = option(
        768, "Shrinks what is shown to at most this many pixels on the longer side.", least=32, most=8192
    )
    embed: bool = option(False, "Puts the images into the lines for OpenAI's batches, as data: URLs.", result=False)
    model: str | None = option(
        None,
        "Names the model that answers: a folder or owner/name on the Hugging Face hub, for transformers; an address "
        "and a name, https://host/v1#name, for a server with OpenAI's chat format, with the key in OPENAI_API_KEY.",
        unset="none: questions and images alone",
    )
    api_base: str | None = option(
        None,
        "Names the address of the server, where --model is only the model's name there.",
        unset="as --model says",
        idle=lambda options: "" if options.model else "without --model",
    )
    tokens: int = option(200, "Sets the most tokens of an answer.", least=1, most=100_000)
    no_temperature: bool = option(False, "Sends no temperature, which models that reason refuse; otherwise it is 0.")
    per_minute: float | None = option(
        None,
        "Lets at most this many requests per minute begin, repeated ones among them.",
        least=1,
        most=100_000,
        unset="no limit",
        result=False,
    )
    at_once: int = option(4, "Sends at most this many requests at the same time.", least=1, most=64, result=False)


def plan(request: Request, options: Options) -> Planned:
    """Plan captions: an image of each view, a row of each question, and the answers where there is a model."""
    views = VIEWS if options.views == "all" else (options.views,)
    answering, fingerprint, reasons, warnings = _answering(options)
    count = len(request.selected) * len(views)
    questions = f"{count:,} questions: {', '.join(views)} of {len(request.selected):,} images"
    remote = answering is not None and _address(options) is not None
    return Planned(
        step=Captions(options, views, answering),
        fingerprint=fingerprint,
        files=dict.fromkeys(views, ".jpg"),
        shown=views[0],
        tables=(Table(caption_files.TABLE, caption_files.COLUMNS),),
        reasons=(questions, *reasons),
        warnings=warnings,
        annotated=False,
        finish=partial(caption_files.finish, embed=options.embed, more=_request(options)),
        # One process has the pace of all requests, and loads a model once.
        workers=None if answering is None else 1,
        threads=_threads(options, len(views)) if remote else 1,
    )


def _request(options: Options) -> Mapping[str, Any]:
    """Return what a request of OpenAI's Batch API has besides its messages."""
    name = {"model": _name(options)} if options.model else {}
    return {**name, **caption_server.limits(caption_server.OPENAI, options.tokens, options.no_temperature)}


def _threads(options: Options, views: int) -> int:
    """Return how many images are asked about at once: no more than get their turn in time."""
    if options.per_minute is None:
        return options.at_once
    return max(1, min(options.at_once, int(options.per_minute * _WAITING / 60 / views)))


Answering = Held[Server] | Held[ImageTextModel]


def _answering(options: Options) -> tuple[Answering | None, Mapping[str, Any], tuple[str, ...], tuple[str, ...]]:
    """Return who answers, what that changes the result by, and what to say about it."""
    if options.model is None:
        return None, NOTHING, ("no model: questions and images alone",), ()
    address = _address(options)
    if address is None:
        return _local(options)
    if importlib.util.find_spec("openai") is None:
        raise MissingExtraError("openai", "captions", "asking a model by its address")
    key = bool(os.environ.get(caption_server.KEY))
    if address == caption_server.OPENAI and not key:
        raise UsageError(f"{address} needs a key: set it in the environment, in {caption_server.KEY}")
    sent = caption_server.sends_key(address)
    warnings = (
        (f"the key in {caption_server.KEY} is not sent to {address}, because that is not https",)
        if key and not sent
        else ()
    )
    most = options.per_minute
    pace = "as fast as it answers" if most is None else f"{most:g} requests a minute at most"
    make = partial(Server, address, _name(options), most, options.tokens, options.no_temperature)
    return Held(make), {"address": address}, (f"{_name(options)} at {address} answers, {pace}",), warnings


def _address(options: Options) -> str | None:
    """Return the address of the model's server; None where the model is one of transformers.

    Raises:
        UsageError: the address or the name is missing, or the address is none.
    """
    model = options.model or ""
    if options.api_base is not None:
        return caption_server.checked(options.api_base)
    if not is_url(model):
        return None
    address, _, name = model.partition("#")
    if not name:
        raise UsageError(f"model must be an address and a name, such as {address.rstrip('/')}#NAME, not {model}")
    return caption_server.checked(address)


def _name(options: Options) -> str:
    """Return the model's name for people and tables; of a folder its last part, empty without a model."""
    model = options.model or ""
    if options.api_base is not None:
        return model
    return model.partition("#")[2] if is_url(model) else Path(model).name if Path(model).is_dir() else model


def _local(options: Options) -> tuple[Answering, Mapping[str, Any], tuple[str, ...], tuple[str, ...]]:
    """Plan a model of transformers."""
    model, warnings = options.model or "", tuple[str, ...]()
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "captions", "a model that answers")
    found: dict[str, Any] = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    if Path(model).is_dir():
        files = sorted(path for path in Path(model).iterdir() if path.is_file())
        if "config.json" not in [path.name for path in files]:
            raise UsageError(f"{model} has no config.json: it is no model of transformers")
        found["model_files"] = {path.name: _version(path) for path in files}
    elif not _HUB_NAME.match(model):
        raise UsageError(
            f"model {model!r} is no folder, no owner/name on the Hugging Face hub, and no address such as "
            "https://host/v1#name"
        )
    elif not is_cached(model):
        warnings = (
            f"{model} is fetched while the first image waits, which may take longer than --deadline allows; fetch it "
            f"before: hf download {model}",
        )
    reasons = (f"{_name(options)} answers, in one process; the likeliest next word is always taken",)
    return Held(partial(ImageTextModel, model, options.tokens)), found, reasons, warnings


def _version(path: Path) -> str | int:
    """Return the digest of a model's file; of a large one the size, for weights have gigabytes."""
    size = path.stat().st_size
    return size if size > _MOST_HASHED else hashlib.sha256(read_regular(path, _MOST_HASHED)).hexdigest()


@dataclass(frozen=True, slots=True)
class Captions:
    """The step: subject -> images, rows with questions and answers.

    Attributes:
        options: what is asked.
        views: what is shown.
        answering: who answers; None where nobody does.
    """

    options: Options
    views: tuple[str, ...]
    answering: Answering | None

    def __call__(self, subject: Subject) -> Product:
        """Make the images of a subject, and ask about each.

        Raises:
            SampleError: the model does not answer.
        """
        if not subject.bits.any():
            return Product(skipped="the mask has no subject pixel, so that there is nothing to show")
        options, question = self.options, self.question(subject.sample.label)
        product, until = Product(rows={caption_files.TABLE: []}), time.monotonic() + caption_server.PATIENCE
        for name in self.views:
            shown = view(name, subject.pixels, subject.bits, options.longest, options.background)
            product.files[name] = encode(shown, ".jpg", _QUALITY)
            row: dict[str, Any] = {"view": name, "question": question}
            if self.answering is not None:
                answer = self._asked(shown, product.files[name], question, until)
                product.flags = tuple(dict.fromkeys((*product.flags, *answer.flags)))
                row |= {"caption": answer.text, "model": _name(options), "end": answer.end, "cut": answer.cut}
                row |= {"question_tokens": answer.asked_tokens, "caption_tokens": answer.said_tokens}
            product.rows[caption_files.TABLE].append(row)
        return product

    def question(self, label: str) -> str:
        """Return the question about an image of a class."""
        name = class_name(label)
        return (
            f"{self.options.question} It shows: {name}." if self.options.name_class and name else self.options.question
        )

    def _asked(self, pixels: UInt8, image: bytes, question: str, until: float) -> Answer:
        """Return the model's answer about an image."""
        assert self.answering is not None
        model = self.answering()
        if isinstance(model, Server):
            return model.ask(image, question, until)
        said = model.ask(pixels, question)
        text, cut = plain(said.text)
        return Answer(text, "stop" if said.ended else "length", cut, said.asked, said.said)


def class_name(label: str) -> str:
    """Return a class name as one writes it: "001.Black_footed_Albatross" is "Black footed Albatross"."""
    return plain(re.sub(r"^\d+\.", "", label).replace("_", " "))[0]

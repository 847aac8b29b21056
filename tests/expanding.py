"""A tiny converted run to expand, and what expansions are asked in tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgfast.errors import ImageRefusedError
from fgfast.expand.kind import NOTHING, Ending, Planned, Product, Request, Subject, Table, option
from fgfast.expand.plan import ExpandPlan, make_plan
from fgfast.expand.run_source import Outcomes, Usable
from fgfast.io.encode import encode_png
from fgfast.pipeline.twin import Twin
from fgfast.records import Bool, Sample, UInt8
from fgfast.writing import write_file


@contextmanager
def request_for(out: Path, kind: str, seed: int = 0, limit: int | None = None) -> Iterator[Request]:
    """What a kind is asked for a run: everything, or the first `limit` samples."""
    with Twin(out) as twin:
        usable = Usable(twin, "use").keys
        yield Request(twin, kind, seed, usable, usable[:limit], Outcomes(twin.output.ledger_path))


def subject(pixels: UInt8, bits: Bool, kind: str = "test", key: str = "a/b.png", **more: Any) -> Subject:
    """A subject that no run knows; `more` are `given`, `seed` and the sample's attributes."""
    given, seed = more.pop("given", NOTHING), more.pop("seed", 0)
    return Subject(Sample(key, Path(key), **more), pixels, bits, given, (seed, kind, key))


def drawn(height: int = 60, width: int = 80, seed: int = 0) -> tuple[UInt8, Bool]:
    """A noisy image with an ellipse of another colour, and its mask."""
    generator = np.random.default_rng(seed)
    rows, columns = np.ogrid[:height, :width]
    bits = ((rows - height / 2) / (height / 3)) ** 2 + ((columns - width / 2) / (width / 4)) ** 2 < 1
    pixels = generator.integers(0, 120, (height, width, 3), np.uint8)
    pixels[bits] = generator.integers(120, 256, (int(bits.sum()), 3), np.uint8)
    return pixels, bits


def planned(run: Path, kind: str, out: Path, **more: Any) -> ExpandPlan:
    """The plan of a kind for a run; a context manager."""
    return make_plan(run, kind, out, **more)


@dataclass(frozen=True)
class Options:
    """The options of a kind for tests."""

    colour: int = option(9, "Sets the grey level of the background.", least=0, most=255)
    refuse: str = option("", "Names a sample that cannot be used.")
    skip: str = option("", "Names a sample that has no product.")
    raises: str = option("", "Names a sample on which the step has a bug.")
    dies: str = option("", "Names a sample that ends its worker process.")
    unused: str = option("", "Names a sample that the plan leaves out.")


@dataclass(frozen=True)
class Everything:
    """Makes one of everything that a product can have."""

    options: Options

    def __call__(self, subject: Subject) -> Product:
        if subject.key == self.options.refuse:
            raise ImageRefusedError("refused", f"{subject.key}: is refused")
        if subject.key == self.options.raises:
            raise RuntimeError("a bug")
        if subject.key == self.options.dies:
            os._exit(9)
        if subject.key == self.options.skip:
            return Product(skipped="it is passed over")
        noise = subject.generator().integers(0, 256, subject.pixels.shape, np.uint8)
        pixels = np.where(subject.bits[..., None], subject.pixels, noise)
        grey = np.full_like(subject.pixels, self.options.colour)
        rows: list[Any] = [{"n": n, "area": int(subject.bits.sum()), "given": subject.given["n"]} for n in range(2)]
        parts = {("parts", f"{n}.png"): encode_png(noise[: n + 1]) for n in range(2)}
        sets = {"first/set": pixels, "second/set": grey}
        return Product(sets, files={"notes": subject.key.encode()}, several=parts, rows={"numbers": rows})


def plan_everything(request: Request, options: Options) -> Planned:
    def finish(ending: Ending) -> list[str]:
        areas = [row["area"] for row in ending.rows("numbers")]
        write_file(ending.target("whole.txt"), f"{len(ending.outcomes)} {sum(areas)}".encode())
        return ["whole.txt"]

    return Planned(
        Everything(options),
        sets=("first/set", "second/set"),
        files={"notes": ".txt"},
        folders=("parts",),
        tables=(Table("numbers", {"n": "int32", "area": "int64", "given": "int64"}),),
        given=lambda key: {"n": request.number(key) % 1000},
        unused={options.unused: "the plan leaves it out"} if options.unused else {},
        finish=finish,
    )


@dataclass(frozen=True)
class Bare:
    """Makes one file."""

    def __call__(self, subject: Subject) -> Product:
        return Product(files={"bare": b"bare"})


def plan_bare(request: Request, options: Options) -> Planned:
    return Planned(Bare(), files={"bare": ".txt"})

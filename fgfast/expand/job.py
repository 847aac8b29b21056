"""The job of a worker process: decode, take the mask, let the kind make its products, write them."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fgfast import ops
from fgfast.errors import BAD_NAME, ImageRefusedError, NameRefusedError
from fgfast.expand.kind import NOTHING, Product, Step, Subject, Table
from fgfast.expand.names import Names
from fgfast.expand.tables import check_arrow, packed
from fgfast.files import FileStamp
from fgfast.io import warned
from fgfast.io.decode import decode
from fgfast.io.encode import FORMAT_SUFFIXES, encode
from fgfast.pipeline.placement import Cost
from fgfast.pipeline.stages import Decode
from fgfast.pipeline.work import ConvertRuntime, Work
from fgfast.records import Bool, Outcome
from fgfast.runner import Stage, WorkerSpec
from fgfast.writing import TempFiles


@dataclass(slots=True)
class ExpandWork(Work):
    """One sample in flight through an expansion.

    Attributes:
        before: its outcome in the run; None, or one without a mask, where that has changed since the plan was made.
        given: what the plan decided for it.
        wanted: the digest of what its products depend on.
        names: the names of its files: what a product names -> path, see `paths_of`.
        bits: its mask.
        product: what the kind made.
        data: its rows, packed, by table.
    """

    before: Outcome | None = None
    given: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    wanted: bytes = b""
    names: Mapping[str, str] = field(default_factory=dict)
    bits: Bool | None = None
    product: Product | None = None
    data: dict[str, bytes] = field(default_factory=dict)

    @property
    def digest(self) -> bytes:
        """The digest of mask, annotations and decisions."""
        return self.wanted

    def success(self, seconds: Mapping[str, float]) -> Outcome:
        """Return the outcome of a sample whose products are written, or which has none."""
        assert self.product is not None and self.before is not None and self.image is not None
        product, before = self.product, self.before
        common: dict[str, Any] = {
            "key": self.sample.key,
            "size": self.image.size,
            "box": before.box,
            "source": self.source,
            "annotation": self.wanted,
            "seconds": seconds,
            "warnings": self.image.warnings,
        }
        if product.skipped:
            return Outcome(status="skipped", stage="make", detail=f"{self.sample.key}: {product.skipped}", **common)
        reasons = (*(before.reasons if before.status == "flagged" else ()), *product.flags)
        shape = next(iter(product.images.values())).shape[:2] if product.images else self.image.size
        return Outcome(
            status="flagged" if reasons else "done",
            stage="write",
            reasons=reasons,
            twin=self.twin,
            twin_size=type(self.image.size)(*shape),
            offset=product.offset,
            box_reason=before.box_reason,
            area=before.area,
            rle=before.rle,
            doubt=before.doubt,
            files=self.files,
            data=self.data,
            **common,
        )


def paths_of(names: Names, key: str) -> dict[str, str]:
    """Return the paths of a sample's files: of an image and an only file by their folder, of several their folder."""
    return {
        **{folder: names.image(folder, key) for folder in names.sets},
        **{folder: names.file(folder, key) for folder in names.files},
        **{folder: names.several(folder, key) for folder in names.folders},
    }


@dataclass(frozen=True, slots=True, eq=False)
class ExpandJob:
    """Makes the products of a kind. It is pickled and opened in each worker process.

    Attributes:
        kind, seed: what random numbers are drawn from, besides the key.
        step: the kind's step.
        tables: its tables.
        folders: folders that have a folder of files per sample.
        turn_exif: see `fgfast.io.decode.decode`.
        out: the output folder.
        suffix: the format of images as a suffix; None for that of each name.
        quality: see `fgfast.io.encode.encode`.
        threads: number of threads in each worker's pool.
        imports: modules that the step imports at first use.
    """

    kind: str
    seed: int
    step: Step
    tables: tuple[Table, ...]
    folders: tuple[str, ...]
    turn_exif: bool
    out: Path
    suffix: str | None
    quality: int
    threads: int = 1
    imports: tuple[str, ...] = ()
    measure: bool = False
    phases: int = 1

    @property
    def cost(self) -> Cost:
        """Nothing runs on a device."""
        return Cost(1.0, 1.0)

    def _warm_up(self) -> None:
        """Import what is imported at first use: it takes up to two seconds, which must not be the first image's."""
        for package in self.imports:
            importlib.import_module(package)
        if self.tables:
            check_arrow()
            for table in self.tables:
                packed(table, [{}])  # Arrow imports pandas, where it is installed, for the first rows
        data = encode(np.zeros((8, 8, 3), np.uint8), self.suffix or ".png", self.quality)
        decode(data, "a small image", self.turn_exif)

    def open(self, spec: WorkerSpec) -> ConvertRuntime:
        """Create the stages."""
        import cv2

        warned.capture_for_good()
        ops.implementation()  # resolved now, so that a broken one raises here and not once per image
        cv2.setNumThreads(1)
        self._warm_up()
        stages: list[Stage[Work]] = [Decode(self.turn_exif), TakeMask(), Make(self.kind, self.seed, self.step)]
        temp_files = TempFiles(self.out)
        stages.append(WriteProduct(temp_files, self.suffix, self.quality, {t.name: t for t in self.tables}))
        return ConvertRuntime(stages, self.threads, True, {"process": os.getpid(), "device": spec.device, "chosen": ()})


@dataclass(frozen=True, slots=True)
class TakeMask:
    """The run's row -> mask, checked against the image."""

    name: str = "mask"

    def __call__(self, work: Work) -> None:
        assert isinstance(work, ExpandWork) and work.image is not None
        before, key = work.before, work.sample.key
        if before is None or before.twin is None or before.rle is None or before.size is None:
            raise ImageRefusedError(
                "changed", f"{key}: the run has no mask for it any more, since this began; run the same command again"
            )
        if before.source and work.source and before.source.sha256 != work.source.sha256:
            raise ImageRefusedError(
                "changed", f"{key}: its file has changed since the run that made its mask; run convert again"
            )
        if before.size != work.image.size:
            height, width = before.size
            raise ImageRefusedError(
                "changed", f"{key}: its mask is for {width}x{height} pixels, and the image has another size"
            )
        try:
            work.bits = ops.rle_decode(before.rle, *before.size)
        except ValueError as error:
            raise ImageRefusedError(
                "damaged mask", f"{key}: its mask in the run's ledger is damaged ({error}); convert it again"
            ) from error


@dataclass(frozen=True, slots=True)
class Make:
    """Image, mask -> product.

    Attributes:
        kind, seed: see ExpandJob.
        step: the kind's step.
    """

    kind: str
    seed: int
    step: Step
    name: str = "make"

    def __call__(self, work: Work) -> None:
        assert isinstance(work, ExpandWork) and work.image is not None and work.bits is not None
        names = (self.seed, self.kind, work.sample.key)
        work.product = self.step(Subject(work.sample, work.image.pixels, work.bits, work.given, names))


@dataclass(frozen=True, slots=True)
class WriteProduct:
    """Product -> files under temporary names, and packed rows.

    Attributes:
        temp_files: writes below the output folder.
        suffix: the format of images as a suffix, or None for that of each name.
        quality: see `fgfast.io.encode.encode`.
        tables: name -> table.
    """

    temp_files: TempFiles
    suffix: str | None
    quality: int
    tables: Mapping[str, Table]
    name: str = "write"

    def __call__(self, work: Work) -> None:
        assert isinstance(work, ExpandWork) and work.product is not None
        product = work.product
        if product.skipped:
            return
        for folder, pixels in product.images.items():
            path = work.names[folder]
            data = encode(np.ascontiguousarray(pixels), self.suffix or PurePosixPath(path).suffix.lower(), self.quality)
            self._write(work, path, data)
        for folder, data in product.files.items():
            self._write(work, work.names[folder], data)
        for (folder, name), data in product.several.items():
            self._write(work, f"{work.names[folder]}/{name}", data)
        work.data = {name: packed(self.tables[name], rows) for name, rows in product.rows.items() if rows}

    def _write(self, work: Work, name: str, data: bytes) -> None:
        try:
            temp, mtime_ns = self.temp_files.write(name, data)
        except NameRefusedError as error:
            raise ImageRefusedError(BAD_NAME, f"{work.sample.key}: {error}") from error
        work.temp_files.append((temp, name))
        work.files[name] = FileStamp(len(data), mtime_ns, hashlib.sha256(data).digest())


def suffix_of(format: str) -> str | None:
    """Return the suffix that stands for a format of images; None for that of each name."""
    return FORMAT_SUFFIXES.get(format)

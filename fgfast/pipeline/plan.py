"""The plan of a run: data set, methods, selection, names; made before anything is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fgfast import __version__, ops
from fgfast.config import Background, Selection, Settings
from fgfast.datasets import open_dataset
from fgfast.datasets.layout import Dataset
from fgfast.errors import SampleError, UnknownNameError, UsageError
from fgfast.io import coco
from fgfast.io.decode import decode, read_bytes
from fgfast.io.output import Output
from fgfast.io.write import FORMAT_SUFFIXES, twin_names
from fgfast.models.grabcut import opencv_version
from fgfast.pipeline.choices import choose, weights_used
from fgfast.records import Sample, UInt8

# torchvision's FGVCAircraft, OxfordIIITPet and Flowers102 build file names themselves.
_LOADERS_THAT_APPEND_JPG = ("aircraft", "pets", "flowers")


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes:
        dataset: the opened data set.
        out: the output folder.
        settings: the settings, with every "auto" replaced by a choice.
        reasons: one sentence per choice.
        positions: positions of the selected samples in the data set's order.
        twins: key -> key in the twin, for all samples of the data set.
        mask_names: key -> path of its mask in the masks folder.
        fingerprint: everything that changes the result; a run is resumed only with the same fingerprint.
        selection: the selection as given.
    """

    dataset: Dataset
    out: Path
    settings: Settings
    reasons: tuple[str, ...]
    positions: tuple[int, ...]
    twins: dict[str, str]
    mask_names: dict[str, str]
    fingerprint: dict[str, Any]
    selection: Selection = Selection()  # noqa: RUF009

    @property
    def selected(self) -> tuple[Sample, ...]:
        """The selected samples, in the data set's order."""
        return tuple(self.dataset.samples[n] for n in self.positions)

    @property
    def request(self) -> dict[str, Any]:
        """What was asked for and the fingerprint holds only as a digest, as plain values, to repeat the run."""
        path = self.settings.fill.path
        return {
            "root": str(self.dataset.root.absolute()),
            "labels": self.fingerprint["labels"],
            "selection": asdict(self.selection),
            "background": str(path) if path else None,
        }


def make_plan(
    dataset: str | Path,
    out: str | Path | None = None,
    *,
    root: str | Path | None = None,
    labels: str | None = None,
    settings: Settings | None = None,
    selection: Selection | None = None,
    measure: bool = True,
) -> Plan:
    """Find the data set, choose the methods, and check the output folder, without writing to it. See `convert`.

    With `measure`, backends are timed where the faster one is not known yet; the result is cached.
    """
    opened = open_dataset(str(dataset), None if root is None else Path(root), labels)
    settings, selection = settings or Settings(), selection or Selection()
    if settings.masks == "rle":
        coco.check_parquet()
    if settings.fill.kind == "transparent" and settings.format not in ("png", "webp"):
        raise UsageError(
            f"a transparent background cannot be kept in format {settings.format!r}: choose format png or webp"
        )
    load_background(settings.fill)  # an unusable image must raise before the run
    if (opened.root / "fgfast" / "run.json").is_file():
        raise UsageError(f"{opened.root} is an output of fgfast, not a data set: give the twin inside it")
    settings, reasons = choose_methods(opened, settings, measure)
    positions = select(opened, selection)
    keys = [sample.key for sample in opened.samples]
    twins, mask_names = names(keys, settings.format, settings.keep_names)
    fingerprint = {
        "fgfast": __version__,
        "opencv": opencv_version(),
        "dataset": opened.name,
        "labels": labels,
        "samples": _digest(opened, positions),
        "weights": weights_used(settings),
        **settings.describe(),
    }
    plan = Plan(
        dataset=opened,
        out=Path(out) if out is not None else Path(f"{opened.folder if opened.name == 'folder' else opened.name}_fg"),
        settings=settings,
        reasons=tuple(reasons),
        positions=positions,
        twins=twins,
        mask_names=mask_names,
        fingerprint=fingerprint,
        selection=selection,
    )
    Output(plan.out, opened.folder).check(opened.root)
    return plan


def load_background(background: Background) -> UInt8 | None:
    """Read the background's image, (H, W, 3) uint8 RGB; None for other kinds of background."""
    if background.path is None:
        return None
    try:
        return decode(read_bytes(background.path), str(background.path), turn_exif=True).pixels
    except SampleError as error:
        raise UsageError(f"the background image cannot be used: {error}") from error


def names(keys: list[str], format: str, keep_names: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Return key -> key in the twin, and key -> path of its mask in the masks folder."""
    twins = {key: key for key in keys} if keep_names else twin_names(keys, FORMAT_SUFFIXES.get(format))
    masks = twin_names(twins.values(), ".png")
    return twins, {key: masks[twin] for key, twin in twins.items()}


def choose_methods(dataset: Dataset, settings: Settings, measure: bool = True) -> tuple[Settings, list[str]]:
    """Replace every "auto" by a choice; return the settings, and the reasons and further notes, one sentence each."""
    settings, reasons = choose(dataset, settings, measure)
    which = ops.implementation()
    reasons.append(f"ops {which}: {'compiled' if which == 'native' else 'NumPy; the native ops are not installed'}")
    appended = dataset.name in _LOADERS_THAT_APPEND_JPG and settings.format in ("png", "webp")
    if appended and not settings.keep_names:
        reasons.append("names end in the new suffix, but torchvision's loader looks for .jpg: see --keep-names")
    if ignored := getattr(dataset, "ignored", 0):
        reasons.append(f"{ignored:,} files are ignored: their names are not those of images, or are not UTF-8")
    return settings, reasons


def select(dataset: Dataset, selection: Selection) -> tuple[int, ...]:
    """Return the positions of the selected samples in the data set's order."""
    samples = dataset.samples
    splits = _known("split", selection.splits, {s.split for s in samples})
    classes = _known("class", selection.classes, set(dataset.classes))
    chosen = [
        n for n, s in enumerate(samples) if (not splits or s.split in splits) and (not classes or s.label in classes)
    ]
    if not chosen:
        raise UsageError(f"no image of {dataset.root} is selected; it has {len(samples):,} in all")
    limit = selection.limit
    if limit is not None and limit < len(chosen):
        chosen = [chosen[n * len(chosen) // limit] for n in range(limit)]
    return tuple(chosen)


def _known(kind: str, asked: Iterable[str], known: set[str]) -> set[str]:
    """Return the requested names, checked; a text with commas holds several, unless it is a name itself."""
    names: set[str] = set()
    for text in asked:
        names |= {text} if text in known else {part.strip() for part in text.split(",")}
    if names and not known - {""}:
        raise UsageError(f"the data set has no {kind} to select by; requested: {', '.join(sorted(names))}")
    for name in sorted(names - known):
        raise UnknownNameError(kind, name, known - {""})
    return names


def _digest(dataset: Dataset, positions: Sequence[int]) -> str:
    """Return the number of selected samples, and a hash of everything in them that changes the result."""
    digest = hashlib.sha256()
    for n in positions:
        sample = dataset.samples[n]
        digest.update(f"{n}\0{sample.key}\0{sample.banner_rows}\0".encode("utf-8", "surrogatepass"))
        digest.update(sample.boxes.tobytes())
    return f"{len(positions)} with sha256 {digest.hexdigest()[:16]}"

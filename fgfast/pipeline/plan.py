"""The plan of a run: data set, methods, selection, names; made before anything is written."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fgfast import __version__, methods, ops
from fgfast.background import Background
from fgfast.config import Selection, Settings
from fgfast.datasets import open_dataset
from fgfast.datasets.layout import Dataset
from fgfast.errors import OutputRefusedError, SampleError, UnknownNameError, UsageError
from fgfast.files import read_regular
from fgfast.io import coco
from fgfast.io.decisions import FILE, Decision, Decisions, digest_of
from fgfast.io.decode import decode, read_bytes
from fgfast.io.encode import FORMAT_SUFFIXES
from fgfast.io.names import twin_names
from fgfast.io.output import Output
from fgfast.io.pack import Pack
from fgfast.io.portable_paths import PortablePaths
from fgfast.models.grabcut import opencv_version
from fgfast.pipeline.annotated import with_masks
from fgfast.pipeline.choices import choose, quantised_graphs, warnings, weights_used
from fgfast.pipeline.exclusion import read_excluded
from fgfast.pipeline.judging import weights_of
from fgfast.pipeline.pack_source import place_of, take_pack
from fgfast.records import Sample, UInt8


@dataclass(frozen=True)
class Plan:
    """The plan of a run.

    Attributes:
        dataset: the opened data set.
        labels: the requested label list; None for the data set's default.
        selection: the requested selection.
        out: the output folder.
        settings: the settings, with every "auto" replaced by a choice.
        reasons: one sentence per choice.
        warnings: what makes many of the masks doubtful, one sentence each.
        positions: positions of the selected samples in the data set's order.
        excluded: keys of the samples that the selection leaves out by name.
        twins: key -> key in the twin, for all samples of the data set.
        mask_names: key -> path of its mask in the masks folder.
        fingerprint: everything that changes the result; a run is resumed only with the same fingerprint.
        decisions: key -> decision in force, of the setting "decisions".
        pack: the masks of the setting "masks_from".
    """

    dataset: Dataset
    labels: str | None
    selection: Selection
    out: Path
    settings: Settings
    reasons: tuple[str, ...]
    positions: tuple[int, ...]
    excluded: frozenset[str]
    twins: dict[str, str]
    mask_names: dict[str, str]
    fingerprint: dict[str, Any]
    warnings: tuple[str, ...] = ()
    decisions: Mapping[str, Decision] = field(default_factory=dict)
    pack: Pack | None = None

    @property
    def selected(self) -> tuple[Sample, ...]:
        """The selected samples, in the data set's order."""
        return tuple(self.dataset.samples[n] for n in self.positions)

    def describe(self) -> dict[str, Any]:
        """What the run is made from, as plain values: an output can be reopened with nothing else.

        Paths are in the form of `PortablePaths`, because the output goes to others.
        """
        given, path = self.settings, self.paths.path
        return {
            "dataset": self.dataset.name,
            "root": path(str(self.dataset.root)),
            "labels": self.labels,
            "follow_links": given.follow_links,
            "selection": {**asdict(self.selection), "exclude": [path(file) for file in self.selection.exclude]},
            "background": None if given.fill.path is None else path(given.fill.path),
            "mask_dir": None if given.mask_dir is None else path(given.mask_dir),
            **({} if given.decisions is None else {"decisions": path(given.decisions)}),
            **({} if given.masks_from is None else {"masks_from": place_of(given.masks_from, path)}),
            "vocabulary": None if (file := _vocabulary_file(given)) is None else path(file),
            "model_weights": None if (file := _weights_file(given)) is None else path(file),
            "doubt_weights": None if given.doubt_weights is None else path(Path(given.doubt_weights).expanduser()),
        }

    @property
    def paths(self) -> PortablePaths:
        """How the files of the output name what is outside it."""
        return PortablePaths(self.out, Path(self.dataset.root))


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
    settings, selection = settings or Settings(), selection or Selection()
    weights_of(settings)  # an unusable file must raise before the run
    given = None if root is None else Path(root)
    opened = open_dataset(str(dataset), given, labels, follow_links=settings.follow_links)
    if settings.masks == "rle":
        coco.check_parquet()
    if settings.fill.kind == "transparent" and settings.format not in ("png", "webp"):
        raise UsageError(
            f"a transparent background cannot be kept in format {settings.format!r}: choose format png or webp"
        )
    load_background(settings.fill)  # an unusable image must raise before the run
    if (opened.root / "fgfast" / "run.json").is_file():
        raise UsageError(f"{opened.root} is an output of fgfast, not a data set: give the twin inside it")
    place = Path(out) if out is not None else Path(f"{opened.folder if opened.name == 'folder' else opened.name}_fg")
    if out is None and place.is_symlink():  # an archive can bring one beside its data set
        raise OutputRefusedError(
            f"{place} is a link, which could lead anywhere, and was not asked for: if it is yours, give it with --out "
            f"{place}; else remove it, or choose another --out"
        )
    output = Output(place, opened.folder)
    excluded = _excluded(selection, opened, output)
    positions = select(opened, selection, excluded)
    settings, reasons = choose_methods(opened, settings, measure, len(positions))
    packed = None
    if settings.masks_from is not None:
        packed, about_pack = take_pack(settings.masks_from, opened, positions)
        reasons.append(about_pack)
    elif methods.method(settings.segmenter, "segmenter").annotated:
        mask_dir = None if settings.mask_dir is None else Path(settings.mask_dir).expanduser()
        opened, about_masks = with_masks(opened, positions, mask_dir)
        reasons += about_masks
    given_decisions = _decisions(settings, output)
    keys = [sample.key for sample in opened.samples]
    twins, mask_names = names(keys, settings.format, settings.keep_names or opened.fixed_names)
    fingerprint = {
        "fgfast": __version__,
        "opencv": opencv_version(),
        "dataset": opened.name,
        "labels": labels,
        "weights": weights_used(settings),
        **quantised_graphs(settings),
        **settings.describe(),
        **_without_paths(settings),
        **({} if settings.decisions is None else {"decisions_sha256": digest_of(given_decisions)}),
        **({} if packed is None else {"masks_from_sha256": packed.sha256}),
    }
    unsure = [opened.samples[n] for n in positions if packed is None or opened.samples[n].key not in packed.keys]
    plan = Plan(
        dataset=opened,
        labels=labels,
        selection=selection,
        out=place,
        settings=settings,
        reasons=tuple(reasons),
        positions=positions,
        excluded=excluded,
        twins=twins,
        mask_names=mask_names,
        fingerprint=fingerprint,
        warnings=warnings(opened, settings, unsure) if unsure else (),
        decisions=given_decisions,
        pack=packed,
    )
    output.check(Path(opened.root))
    return plan


def _vocabulary_file(settings: Settings) -> Path | None:
    """Return the file of the vocabulary, where it is one."""
    given = settings.vocabulary
    if given is None or "," in given:
        return None
    file = Path(given).expanduser()
    return file if file.is_file() else None


def _weights_file(settings: Settings) -> Path | None:
    """Return the file or the folder of the weights, where they are one."""
    given = settings.model_weights
    return None if given == "cached" or methods.seed_of(given) is not None else Path(given).expanduser()


def _without_paths(settings: Settings) -> dict[str, str]:
    """Return the settings that are files, by name and content: the fingerprint goes to others, and files may move."""
    found = {}
    if (file := _vocabulary_file(settings)) is not None:
        try:
            digest = hashlib.sha256(read_regular(file)).hexdigest()
        except OSError as error:
            raise UsageError(f"vocabulary {file} cannot be read: {error.strerror or error}") from error
        found["vocabulary"] = f"{file.name} (sha256 {digest[:16]})"
    if (file := _weights_file(settings)) is not None:
        found["model_weights"] = file.name  # their content is in "weights"
    if settings.doubt_weights is not None:
        file = Path(settings.doubt_weights).expanduser()
        found["doubt_weights"] = f"{file.name} (sha256 {hashlib.sha256(read_regular(file)).hexdigest()[:16]})"
    return found


def _decisions(settings: Settings, output: Output) -> dict[str, Decision]:
    """Return key -> decision in force, of the setting "decisions"."""
    if settings.decisions is None:
        return {}
    given = Path(settings.decisions).expanduser()
    with Decisions.named(given) as decisions:
        if decisions.path.absolute() == (output.ours / FILE).absolute():
            raise UsageError(f"the decisions in {output.out} hold for it anyway: omit --decisions, or name another run")
        return decisions.in_force()


def _excluded(selection: Selection, dataset: Dataset, output: Output) -> frozenset[str]:
    """Return the keys that the selection leaves out by name; the data set may no longer have some of them."""
    if not selection.exclude:
        return frozenset()
    for file in selection.exclude:
        if Path(file).absolute().parent == output.ours.absolute():
            raise UsageError(f"the list {file} is written anew by this run: copy it elsewhere, and exclude the copy")
    return read_excluded(selection.exclude, {s.key for s in dataset.samples} | output.known_keys())


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


def choose_methods(
    dataset: Dataset, settings: Settings, measure: bool = True, images: int | None = None
) -> tuple[Settings, list[str]]:
    """Replace every "auto" by a choice; return the settings, and the reasons and further notes, one sentence each."""
    settings, reasons = choose(dataset, settings, measure, images)
    which = ops.implementation()
    reasons.append(f"ops {which}: {'compiled' if which == 'native' else 'NumPy; the native ops are not installed'}")
    if dataset.fixed_names and settings.format not in ("same", "jpeg"):
        reasons.append(
            f"names keep .jpg, which the loader of {dataset.title} appends itself; the content is {settings.format}"
        )
    if settings.follow_links:
        reasons.append("links that lead out of the data set are followed")
    reasons += dataset.notes(settings.crop != "none")
    return settings, reasons


def select(dataset: Dataset, selection: Selection, excluded: frozenset[str]) -> tuple[int, ...]:
    """Return the positions of the selected samples in the data set's order; `excluded` are keys to leave out."""
    samples = dataset.samples
    splits = _known("split", selection.splits, {s.split for s in samples})
    classes = _known("class", selection.classes, set(dataset.classes))
    chosen = [
        n
        for n, s in enumerate(samples)
        if (not splits or s.split in splits) and (not classes or s.label in classes) and s.key not in excluded
    ]
    if not chosen:
        left_out = f", of which {len(excluded):,} are excluded" if excluded else ""
        raise UsageError(f"no image of {dataset.root} is selected; it has {len(samples):,} in all{left_out}")
    limit = selection.limit
    if limit is not None and limit < len(chosen):
        chosen = [chosen[n * len(chosen) // limit] for n in range(limit)]
    return tuple(chosen)


def _known(kind: str, asked: Iterable[str], known: set[str]) -> set[str]:
    """Return the requested names, checked; a text with commas holds several, unless it is a name itself.

    The Unicode form of a name's letters does not count: a Mac's disk may have it otherwise than its keyboard.
    """
    names: set[str] = set()
    composed = {unicodedata.normalize("NFC", name): name for name in known}

    def meant(text: str) -> str:
        return text if text in known else composed.get(unicodedata.normalize("NFC", text), text)

    for text in map(meant, asked):
        names |= {text} if text in known else {meant(part.strip()) for part in text.split(",")}
    if names and not known - {""}:
        raise UsageError(f"the data set has no {kind} to select by; requested: {', '.join(sorted(names))}")
    for name in sorted(names - known):
        raise UnknownNameError(kind, name, known - {""})
    return names

"""The segmenter "annotations": masks that exist already, of the data set or of --mask-dir."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fgfast.config import Settings
from fgfast.data_paths import DataPath
from fgfast.datasets import mask_files
from fgfast.datasets.layout import Dataset
from fgfast.datasets.masks import RULES, read_mask
from fgfast.errors import MaskUnusableError, UsageError
from fgfast.io.ledger import Ledger
from fgfast.mask_source import MaskSource
from fgfast.methods import ModelSpec, method
from fgfast.ops.evidence import evidence
from fgfast.ops.flags import AGREEMENT, flags
from fgfast.ops.geometry import mask_box
from fgfast.pipeline.prompt import choose_prompt
from fgfast.pipeline.stages import Detector
from fgfast.pipeline.work import Work
from fgfast.records import Mask, Prompt, Sample, Size

AnnotatedSegmenter = Callable[[Sample, Size], Mask]
"""(sample, size of its image) -> mask at that size."""


def segmenter(spec: ModelSpec) -> AnnotatedSegmenter:
    """Build the method "annotations"."""
    return lambda sample, size: Mask(read_mask(sample, size))


@dataclass(frozen=True, slots=True)
class ReadMask:
    """Image -> Prompt, Mask.

    The prompt is the data set's box of the image (the largest), or the box around the mask where it has none. The mask
    is the truth: only the flags that compare it with the data set's box are used, and those that it had in the run that
    made it.

    Attributes:
        segment: the segmenter.
        boxes: gives the data set's boxes.
    """

    segment: AnnotatedSegmenter
    boxes: Detector
    name: str = "mask"

    def __call__(self, work: Work) -> None:
        assert work.image is not None
        size, sample = work.image.size, work.sample
        bits = self.segment(sample, size).bits
        bits[size.height - min(sample.banner_rows, size.height) :] = False
        if (around := mask_box(bits)) is None:
            raise MaskUnusableError("empty mask", f"the mask of {sample.key} has no pixel above the banner")
        work.mask = Mask(bits)
        work.flags.extend(sample.mask.flags if sample.mask else ())
        work.prompt, no_box, work.others = choose_prompt(self.boxes(sample, work.image), sample, size)
        if no_box:
            work.prompt = Prompt(around, "the box around the annotated mask")
        else:
            found = flags(bits, work.prompt.box, sample.banner_rows)
            work.numbers |= {flag: number for flag, number in found.items() if flag in AGREEMENT}
            work.flags.extend(flag for flag in work.numbers if flag not in work.flags)
        work.numbers |= evidence(work.image.pixels, bits, work.prompt.box, sample.banner_rows, bool(no_box))


def official_masks(dataset: Dataset, settings: Settings) -> Mapping[str, MaskSource]:
    """Return key -> the data set's own mask, which judges those that are made; none where a run takes its masks.

    Files are neither looked for nor hashed, because no cut-out depends on them.
    """
    own = None if method(settings.segmenter, "segmenter").annotated else dataset.masks()
    return {} if own is None else {key: MaskSource(own[0], path, "") for key, path in own[1].items()}


def with_masks(
    dataset: Dataset, positions: Sequence[int], mask_dir: Path | None, option: str = "--mask-dir"
) -> tuple[Dataset, list[str]]:
    """Return the data set with the annotated masks of its selected samples, and sentences about them for the plan.

    Args:
        dataset: the data set.
        positions: of the selected samples.
        mask_dir: a folder of masks, the output of an earlier run, or a COCO file; None for the data set's own masks.
        option: the option that names them, for messages.

    Raises:
        UsageError: there are no masks.
        DatasetError: a file of masks is not understood.
    """
    wanted = dict.fromkeys(dataset.samples[n].key for n in positions)
    found = _own(dataset, wanted, option) if mask_dir is None else _given(mask_dir, dataset, wanted, option)
    samples = list(dataset.samples)
    for n in positions:
        samples[n] = replace(samples[n], mask=found.masks.get(samples[n].key))
    reasons = [f"masks of {'the data set' if mask_dir is None else mask_dir}: {found.rule}"]
    if missing := len(wanted) - len(found.masks):
        reasons.append(f"masks: {missing:,} of {len(wanted):,} images have none, and will fail")
    if found.unused:
        reasons.append(f"masks: {found.unused:,} in {mask_dir} belong to no image of the data set")
    return replace(dataset, samples=tuple(samples)), reasons


def _own(dataset: Dataset, wanted: Collection[str], option: str) -> mask_files.Found:
    own = dataset.masks()
    if own is None:
        if not dataset.masks_from:
            raise UsageError(f"{dataset.title} has no masks of its own: give some with {option}")
        raise UsageError(f"{dataset.title} is here without its masks. {dataset.masks_from} Or give some with {option}.")
    kind, files = own
    masks = mask_files.from_files(kind, {key: path for key, path in files.items() if key in wanted})
    if not masks:
        raise UsageError(f"no selected image has a mask; the first would be {next(iter(files.values()))}")
    return mask_files.Found(masks, RULES[kind])


def _given(path: Path, dataset: Dataset, wanted: Collection[str], option: str) -> mask_files.Found:
    if path.is_file():
        if path.suffix.lower() != ".json":
            raise UsageError(f"{option} is a folder of masks, the output of a run, or a COCO file (.json), not {path}")
        return mask_files.in_coco(path, dataset.samples, wanted)
    if not path.is_dir():
        raise UsageError(f"{option}: there is no folder {path.absolute()}")
    ledger = path / "fgfast" / "ledger.sqlite"
    if ledger.is_file():
        return _earlier_run(ledger, wanted)
    return mask_files.in_folder(DataPath(str(path), follow=dataset.root.follow), dataset.samples, wanted)


def _earlier_run(path: Path, wanted: Collection[str]) -> mask_files.Found:
    """Find the masks of an earlier run, with the reasons to doubt them."""
    masks: dict[str, MaskSource] = {}
    with Ledger(path, write=False) as ledger:
        for outcome in ledger.outcomes(("done", "flagged")):
            if outcome.key in wanted and outcome.rle is not None and outcome.size is not None:
                mask = {"size": list(outcome.size), "counts": outcome.rle.decode("ascii")}
                one = [{"id": outcome.key, "segmentation": mask}]
                masks[outcome.key] = mask_files.coco_source(path, one, flags=outcome.reasons)
    if not masks:
        raise UsageError(f"the run in {path.parent.parent} has no mask of a selected image")
    return mask_files.Found(masks, "those of the earlier run, with their flags")

"""Carries `fgfast study features` out: one backbone after the other, on one device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event

from fgfast.errors import FgfastError, OutputFailedError, UnknownNameError, UsageError
from fgfast.studies import features_study
from fgfast.studies.cell import ARMS as ARMS_OF_ALL
from fgfast.studies.cell import Arm, plain_name
from fgfast.studies.feature_measures import Measured, Space, measure
from fgfast.studies.grid import Grid
from fgfast.studies.run import alone
from fgfast.writing import Target, make_folder

ARMS: tuple[Arm, ...] = ("x", "x_fg", "only-bg", "x-box")
"""X cropped to the box is there so that "no background" is not just "closer"."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured.

    Attributes:
        verdict: sentences, and how sure each is.
        figures: "backbone, arm" -> figures.
        failed: backbone -> why.
        stopped: whether it was stopped before all was computed; then there is no page yet.
    """

    verdict: list[tuple[str, str]]
    figures: dict[str, dict[str, float | None]]
    failed: dict[str, str] = field(default_factory=dict)
    stopped: bool = False


def check(arms: Sequence[Arm]) -> None:
    """Check the arms that are asked for.

    Raises:
        UnknownNameError: there is no such arm.
        UsageError: none is named, or one twice.
    """
    for arm in arms:
        if arm not in ARMS_OF_ALL:
            raise UnknownNameError("arm", arm, ARMS_OF_ALL)
    if not arms or len(set(arms)) < len(arms):
        raise UsageError("features need an arm, and each arm once")


def run(
    grid: Grid,
    arms: Sequence[Arm],
    device: str,
    *,
    threads: int = 1,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
    stop: Event | None = None,
) -> Found:
    """Compute features, measure them, and write the page; a backbone that fails is named, and the others go on.

    Args:
        grid: the study; its cells name the backbones.
        arms: what is shown.
        device: "cpu", "cuda:0", ...
        threads: that load batches ahead.
        overwrite: compute everything again.
        progress: called with a sentence for each arm that is done.
        stop: once set, it ends after the current batch; what is kept stays.

    Raises:
        UnknownNameError: there is no such arm.
        UsageError: no backbone could be measured, another process works in the folder, or no sample has all arms.
        OutputFailedError: the disk is full, read-only or failing.
    """
    check(arms)
    grid.check(overwrite)
    with alone(grid.out):
        grid.open(overwrite)
        return _run(grid, arms, device, threads, progress or (lambda text: None), stop or Event())


def _run(
    grid: Grid, arms: Sequence[Arm], device: str, threads: int, progress: Callable[[str], None], stop: Event
) -> Found:
    from fgfast.studies import features

    measured: dict[tuple[str, str], Measured] = {}
    spaces: dict[tuple[str, str], Space] = {}
    failed: dict[str, str] = {}
    for cell in grid.cells:
        make_folder(grid.folder(cell))
        try:
            for one in features.by_arm(grid, cell, arms, device, threads, stop):
                space = features.space_of(grid, one)
                measured[(cell.backbone, one.arm)] = measure(space, len(grid.pairs.classes))
                spaces[(cell.backbone, one.arm)] = space
                progress(f"{plain_name(cell.backbone)}, {one.arm}: {len(one.indexes):,} images")
                if stop.is_set():
                    break
        except OutputFailedError:
            raise
        except FgfastError as error:
            failed[cell.backbone] = str(error)
        if stop.is_set():
            return Found([], {}, failed, stopped=True)
    if not measured:
        raise UsageError(f"no backbone could be measured: {next(iter(failed.values()))}")
    lost = [(plain_name(backbone), why) for backbone, why in failed.items()]
    lost += _left_out(grid, arms)
    said = features_study.Said(grid.dataset, grid.pairs.classes, grid.shown.seed)
    features_study.write(Target(grid.out), said, measured, spaces, lost)
    return Found(features_study.verdict(measured, grid.shown.seed), features_study.figures(measured), failed)


def _left_out(grid: Grid, arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """Return what is said of images that lack an arm: every arm must be of the same images."""
    from fgfast.studies.features import usable

    count = len(grid.train) + len(grid.test) - len(usable(grid, arms))
    why = f"not shown in all of {', '.join(arms)}, which must be of the same images, or alone in their class"
    return [(f"{count:,} of {len(grid.train) + len(grid.test):,} images", why)] if count else []

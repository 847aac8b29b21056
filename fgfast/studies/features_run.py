"""Carries `fgfast study features` out: one backbone after the other, on one device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fgfast.errors import FgfastError, OutputFailedError, UsageError
from fgfast.studies import features_study
from fgfast.studies.cell import Arm, plain_name
from fgfast.studies.feature_measures import Measured, Space, measure
from fgfast.studies.grid import LOCK, Grid
from fgfast.writing import Target, locked, make_folder

ARMS: tuple[Arm, ...] = ("x", "x_fg", "only-bg", "x-box")
"""X cropped to the box is there so that "no background" is not just "closer"."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured.

    Attributes:
        verdict: sentences, and how sure each is.
        figures: "backbone, arm" -> figures.
        failed: backbone -> why.
    """

    verdict: list[tuple[str, str]]
    figures: dict[str, dict[str, float]]
    failed: dict[str, str] = field(default_factory=dict)


def run(
    grid: Grid,
    arms: Sequence[Arm],
    device: str,
    *,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Found:
    """Compute features, measure them, and write the page; a backbone that fails is named, and the others go on.

    Args:
        grid: the study; its cells name the backbones.
        arms: what is shown.
        device: "cpu", "cuda:0", ...
        overwrite: compute everything again.
        progress: called with a sentence for each arm that is done.

    Raises:
        UsageError: no backbone could be measured, another process works in the folder, or no sample has all arms.
        OutputFailedError: the disk is full, read-only or failing.
    """
    from filelock import Timeout

    grid.check(overwrite)
    try:
        with locked(Target(grid.out, LOCK), timeout=0):
            grid.open(overwrite)
            return _run(grid, arms, device, progress or (lambda text: None))
    except Timeout:
        raise UsageError(f"another process works in {grid.out}: wait for it, or choose another folder") from None


def _run(grid: Grid, arms: Sequence[Arm], device: str, progress: Callable[[str], None]) -> Found:
    from fgfast.studies import features

    measured: dict[tuple[str, str], Measured] = {}
    spaces: dict[tuple[str, str], Space] = {}
    failed: dict[str, str] = {}
    for cell in grid.cells:
        make_folder(grid.folder(cell))
        try:
            for one in features.by_arm(grid, cell, arms, device, 1):
                space = features.space_of(grid, one)
                measured[(cell.backbone, one.arm)] = measure(space, len(grid.pairs.classes))
                spaces[(cell.backbone, one.arm)] = space
                progress(f"{plain_name(cell.backbone)}, {one.arm}: {len(one.indexes):,} images")
        except OutputFailedError:
            raise
        except FgfastError as error:
            failed[cell.backbone] = str(error)
    if not measured:
        raise UsageError(f"no backbone could be measured: {next(iter(failed.values()))}")
    lost = [(plain_name(backbone), why) for backbone, why in failed.items()]
    features_study.write(Target(grid.out), grid.dataset, measured, spaces, grid.shown.seed, lost)
    return Found(features_study.verdict(measured, grid.shown.seed), features_study.figures(measured), failed)

"""A backbone that another study trained, by the folder of its cell: its weights, and what they were trained to see.

Import this module only where a model is at hand: it imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgfast.errors import UsageError
from fgfast.models.files.states import check_state, load_state
from fgfast.studies.cell import Cell
from fgfast.studies.grid import CELL, STUDY, WEIGHTS
from fgfast.studies.models import Backbone, build, model_named
from fgfast.studies.opened import about_of, recipe_of
from fgfast.studies.recipes import Recipe
from fgfast.studies.stored import cell_of, understood
from fgfast.transfer import digest_of


@dataclass(frozen=True, slots=True)
class TrainedCell:
    """A trained cell in its folder, which may be anybody's.

    Attributes:
        folder: STUDY/cells/NAME.
        cell: the cell.
        recipe: how it was trained.
        classes: of its classifier; None where its study is not around it.
        options: of timm.
        division: digest of its study's pairs, test share and seed of the division; None where its study is not there.
    """

    folder: Path
    cell: Cell
    recipe: Recipe
    classes: int | None
    options: dict[str, Any]
    division: tuple[str, float | None, int] | None = None

    def check_unseen(self, pairs: str, test_share: float | None, seed: int) -> None:
        """Check that these images are divided into train and test as they were when it was trained.

        Args:
            pairs: their digest; images of another run cannot be checked.
            test_share, seed: of the division.

        Raises:
            UsageError: they are not, so that it has been trained on images that test.
        """
        if self.division is None or self.division[0] != pairs:
            return
        _, share, its_seed = self.division
        if share != test_share or (share is not None and its_seed != seed):
            own = "the data set's own split" if share is None else f"--test-share {share:g} --seed {its_seed}"
            raise UsageError(
                f"{self.folder} was trained on another division of these images, so that images that test it may have "
                f"trained it: divide them as its study did, with {own}"
            )


def is_cell(backbone: str) -> bool:
    """Whether the name of a backbone is the folder of a trained cell."""
    return (Path(backbone) / CELL).is_file()


def trained_cell(folder: Path) -> TrainedCell:
    """Return what a folder of a trained cell says of it.

    Raises:
        DatasetError: a file is not understood.
        UsageError: the weights were not kept.
    """
    cell, recipe = understood(folder / CELL, cell_of), understood(folder / CELL, recipe_of)
    if not (folder / WEIGHTS).is_file():
        raise UsageError(f"{folder} has no weights: train that study without --no-weights")
    study = folder.absolute().parent.parent / STUDY
    if not study.is_file():
        return TrainedCell(folder, cell, recipe, None, {})
    about = understood(study, about_of)
    classes, division = understood(study, lambda found: len(found["classes"])), _division(about)
    return TrainedCell(folder, cell, recipe, classes, about["options"], division)


def _division(about: dict[str, Any]) -> tuple[str, float | None, int]:
    return about["pairs"], about["test share"], about["backgrounds"]


def built(trained: TrainedCell, classes: int) -> Backbone:
    """Build a trained cell's model with the weights that it was trained to.

    Args:
        trained: the cell.
        classes: of its classifier, where its study is not around it.

    Raises:
        UsageError: timm has no such model, or does not take the study's options.
        WeightsError: the weights are damaged, or another model's.
    """
    model = build(
        model_named(trained.cell.backbone),
        trained.classes or classes,
        image_size=trained.recipe.image_size or None,
        pooling=trained.cell.strategy.pooling,
        **trained.options,
    )
    path = trained.folder / WEIGHTS
    model.load_state_dict(check_state(load_state(path), model.state_dict(), source=path))
    model.digest = digest_of(path)
    return model

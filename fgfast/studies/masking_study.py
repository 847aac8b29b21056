"""`fgfast study masking`: none, early, late masking (Masking Strategies, arXiv 2308.12127), frozen or fine-tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fgfast.errors import UsageError
from fgfast.studies.cell import SHARE, Arm, Cell, Strategy, plain_name
from fgfast.studies.grid import EvaluationSet
from fgfast.studies.results import Row, Study
from fgfast.studies.tables import Table

BACKBONES = tuple(
    name for size in ("small", "base", "large") for name in (f"convnext_{size}", f"vit_{size}_patch14_dinov2")
)
UNMASKED = EvaluationSet("x-unmasked", "x", masked=False)
"""X without the masking of pixels: what an early-masked classifier says where nobody masks."""
TESTS = (*(EvaluationSet(arm, arm) for arm in ("x", "x_fg", "mixed-same", "mixed-rand", "only-bg")), UNMASKED)

# Of maps; and of tokens, where the class token has seen the background and must be dealt with by name.
_OF_MAPS = ("none", "early", "late", "late:second-last", "late:last:fg")
_OF_TOKENS = (
    *("none:last:class", "none:last:patch", "early:last:class", "early:last:patch"),
    *("late:second-last:class", "late:second-last:class:block", "late:last:patch:drop", "late:second-last:fg:block"),
)


def strategy_of(text: str, share: float, fill: str) -> Strategy:
    """Read a strategy: WHERE[:STAGE[:POOLING[:CLASS TOKEN]]], as in late:second-last:fg:block.

    Raises:
        UsageError: it has too many parts.
        UnknownNameError: a part is no name of its kind.
    """
    parts = [part.strip() for part in text.split(":")]
    if len(parts) > 4:
        raise UsageError(f"a strategy is WHERE:STAGE:POOLING:CLASS-TOKEN, not {text!r}")
    given: dict[str, Any] = dict(zip(("where", "stage", "pooling", "class_token"), parts, strict=False))
    found = replace(Strategy(share=share, fill=fill), **{name: value for name, value in given.items() if value})
    # What it does not use is not said: it would be trained again for each.
    return replace(found, share=share if found.by_cell else SHARE, fill=fill if found.early else Strategy().fill)


def defaults(backbone: str) -> tuple[str, ...]:
    """Return the strategies of a backbone by default; by its name, for it is not built yet."""
    tokens = plain_name(backbone).startswith(("vit_", "deit", "test_vit"))
    return _OF_TOKENS if tokens else _OF_MAPS


def cells(
    backbones: Sequence[str],
    strategies: Sequence[str],
    recipes: Sequence[str],
    seeds: Sequence[int],
    pretrained: bool,
    share: float,
    fill: str,
) -> tuple[Cell, ...]:
    """Return the trainings, seed by seed; without strategies each backbone has those of its kind."""
    return tuple(
        Cell("masking", backbone, "x", strategy_of(text, share, fill), recipe, seed, pretrained)
        for seed in seeds
        for recipe in recipes
        for backbone in backbones
        for text in strategies or defaults(backbone)
    )


def by_size(study: Study, test: str = "mixed-rand") -> Table:
    """Return the accuracy on a test set: a row for each strategy and recipe, a column for each backbone."""
    rows = study.rows
    backbones = tuple(dict.fromkeys(row.cell.backbone for row in rows))
    kinds = dict.fromkeys(_kind(row) for row in rows)
    found = {(_kind(row), row.cell.backbone): row.accuracy(test) for row in rows}
    lines = tuple((*_said(kind), *(found.get((kind, name)) for name in backbones)) for kind in kinds)
    title = f"Strategies by backbone, tested on {test}"
    note = f"Accuracy in percent on {test}, mean over trainings."
    shares = dict.fromkeys(row.cell.strategy.share for row in rows if row.cell.strategy.by_cell)
    if shares:
        note += f" The share of a foreground cell is {', '.join(f'{share:g}' for share in shares)}."
    return Table("strategies", title, ("Strategy", "Recipe", *map(plain_name, backbones)), lines, note)


# What a line of that table is of: all that tells rows apart but the backbone, and the strategy's name, which says
# whether the backbone has a class token.
_Kind = tuple[str, Strategy, str, Arm, bool]


def _kind(row: Row) -> _Kind:
    cell = row.cell
    return cell.strategy_name, cell.strategy, cell.recipe, cell.train, cell.pretrained


def _said(kind: _Kind) -> tuple[str, str]:
    strategy, _, recipe, _, pretrained = kind
    return strategy, recipe if pretrained else f"{recipe}, random start"

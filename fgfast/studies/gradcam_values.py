"""What was seen of where a classifier looks, and its file: one row for each image and arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fgfast.errors import DatasetError, UsageError
from fgfast.studies.predictions import some_keys

if TYPE_CHECKING:
    import pyarrow as pa

VALUES = "looks.parquet"
"""The file, in the folder of a cell."""
METHODS = {"cam": "Grad-CAM", "gradient": "input gradients"}
"""Prefix of columns -> name for people."""
SHARES = ("probability", "area", "repainted_probability", "cam_inside", "gradient_inside")
"""Columns of shares, 0..1, float64: the probability of the image's class, before and after its background was
repainted; the mask's share of what the model sees; the share of a map's energy inside the mask, NaN without any."""
TRUTHS = ("cam_evidence", "cam_hit", "gradient_evidence", "gradient_hit")
"""Columns of bool: whether a map is above zero anywhere; whether its highest pixel is inside the mask."""
CLASSES = ("label", "prediction", "repainted_prediction")
"""Columns of classes, int32."""
_MAY_LACK = ("cam_inside", "gradient_inside")


@dataclass(frozen=True, slots=True)
class Values:
    """What was seen of one cell.

    Attributes:
        keys: of the images, (N,); each once in an arm.
        arms: that were shown, (N,).
        columns: those of `SHARES`, `TRUTHS` and `CLASSES`, (N,) each.

    Raises:
        UsageError: lengths differ, a column lacks, a key occurs twice in an arm, a share does not lie in 0..1.
    """

    keys: tuple[str, ...]
    arms: tuple[str, ...]
    columns: Mapping[str, NDArray[Any]]

    def __post_init__(self) -> None:
        if lacking := [name for name in (*SHARES, *TRUTHS, *CLASSES) if name not in self.columns]:
            raise UsageError(f"there is no column {', '.join(lacking)}")
        lengths = {len(self.keys), len(self.arms), *(len(column) for column in self.columns.values())}
        if len(lengths) > 1:
            raise UsageError(f"the columns must be of one length, not {sorted(lengths)}")
        pairs = list(zip(self.arms, self.keys, strict=True))
        if len(set(pairs)) < len(pairs):
            raise UsageError("an image occurs twice in an arm")
        for name in SHARES:
            column = self.columns[name]
            fine = (column >= 0) & (column <= 1 + 1e-6) | (np.isnan(column) & (name in _MAY_LACK))
            if not fine.all():
                bad = [self.keys[n] for n in np.flatnonzero(~fine)]
                raise UsageError(f"{name} must lie between 0 and 1, which that of these does not: {some_keys(bad)}")

    def of(self, arm: str) -> tuple[tuple[str, ...], Mapping[str, NDArray[Any]]]:
        """Return the keys of an arm in their order, and its columns."""
        there = [n for n, one in enumerate(self.arms) if one == arm]
        there.sort(key=lambda n: self.keys[n])
        return tuple(self.keys[n] for n in there), {name: column[there] for name, column in self.columns.items()}


def as_table(values: Values) -> pa.Table:
    """Return values as the table that looks.parquet holds, sorted by arm and key."""
    import pyarrow as pa

    order = sorted(range(len(values.keys)), key=lambda n: (values.arms[n], values.keys[n]))
    found = {
        "key": pa.array([values.keys[n] for n in order], pa.string()),
        "arm": pa.array([values.arms[n] for n in order], pa.string()),
    }
    for names, kind in ((CLASSES, pa.int32()), (SHARES, pa.float64()), (TRUTHS, pa.bool_())):
        found |= {name: pa.array(values.columns[name][order], kind, from_pandas=False) for name in names}
    return pa.table(found)


def read_values(path: Path) -> Values:
    """Read looks.parquet.

    Raises:
        DatasetError: it is no such file, or its content is not understood.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
        names = ("key", "arm", *CLASSES, *SHARES, *TRUTHS)
        if lacking := [name for name in names if name not in table.column_names or table.column(name).null_count]:
            raise DatasetError(path, f"has no column {', '.join(lacking)}, or rows without it")
        keys, arms = (tuple(map(str, table.column(name).to_pylist())) for name in ("key", "arm"))
        kinds: Sequence[tuple[Sequence[str], Any]] = ((CLASSES, np.int64), (SHARES, np.float64), (TRUTHS, bool))
        columns = {name: table.column(name).to_numpy().astype(kind) for some, kind in kinds for name in some}
        return Values(keys, arms, columns)
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise DatasetError(path, f"is no table of where a model looks: {error}") from error
    except UsageError as error:
        raise DatasetError(path, str(error)) from error

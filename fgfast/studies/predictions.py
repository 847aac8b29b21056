"""What a model said of a test set, and its file: one row for each image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fgfast.errors import DatasetError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("key", "label", "prediction", "confidence")
"""Of predictions-ARM.parquet: string, int32, int32, float32."""
_NAMED = 5  # keys named in an error


@dataclass(frozen=True, slots=True)
class Predictions:
    """What one model said of one test set.

    Attributes:
        keys: of the images, each once, (N,).
        labels: index of the class, int64 (N,).
        predicted: index of the class that the model chose, int64 (N,).
        confidence: softmax probability of that class, float64 (N,), 0..1.

    Raises:
        UsageError: there is none; lengths differ; a key occurs twice; a class is negative; a confidence is no share.
    """

    keys: tuple[str, ...]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not self.keys:
            raise UsageError("there are no predictions: accuracy of no image is no number")
        lengths = {len(self.keys), *(len(column) for column in (self.labels, self.predicted, self.confidence))}
        if len(lengths) > 1:
            raise UsageError(f"the columns of predictions must be of one length, not {sorted(lengths)}")
        if len(set(self.keys)) < len(self.keys):
            seen: set[str] = set()
            twice = sorted({key for key in self.keys if key in seen or seen.add(key)})  # type: ignore[func-returns-value]
            raise UsageError(f"each image must be predicted once; there more than once: {some_keys(twice)}")
        wrong = ~((self.confidence >= 0) & (self.confidence <= 1 + 1e-6))  # float32 softmax exceeds 1 by 1e-7
        if wrong.any():
            bad = [self.keys[n] for n in np.flatnonzero(wrong)]
            raise UsageError(f"a confidence must lie between 0 and 1, which these do not (NaN?): {some_keys(bad)}")
        if min(self.labels.min(), self.predicted.min()) < 0:
            raise UsageError("classes must be numbered from 0; a label or prediction is negative")

    @classmethod
    def of(cls, keys: Iterable[str], labels: ArrayLike, predicted: ArrayLike, confidence: ArrayLike) -> Predictions:
        """Make predictions from any sequences."""
        classes = np.asarray(labels, np.int64), np.asarray(predicted, np.int64)
        return cls(tuple(keys), *classes, np.asarray(confidence, np.float64))

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image is predicted right, (N,)."""
        return np.asarray(self.labels == self.predicted)

    def ordered(self, keys: Sequence[str]) -> Predictions:
        """Return the predictions of these images, in their order."""
        place = {key: n for n, key in enumerate(self.keys)}
        rows = [place[key] for key in keys]
        return Predictions(tuple(keys), self.labels[rows], self.predicted[rows], self.confidence[rows])


def some_keys(keys: Sequence[str]) -> str:
    """Name the first few keys, for an error."""
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return ", ".join(ascii(key) for key in keys[:_NAMED]) + more


def read_predictions(path: Path) -> Predictions:
    """Read predictions-ARM.parquet: columns key, label, prediction, confidence; others are ignored.

    Raises:
        DatasetError: it is no such file, or its content is no predictions.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, columns=list(COLUMNS))
        missing = [name for name in COLUMNS if name not in table.column_names]
        if missing:
            raise DatasetError(path, f"has no column {', '.join(missing)}")
        empty = [name for name in COLUMNS if table.column(name).null_count]
        if empty:
            raise DatasetError(path, f"has rows without {', '.join(empty)}")
        keys, *numbers = (table.column(name) for name in COLUMNS)
        return Predictions.of(map(str, keys.to_pylist()), *(column.to_numpy() for column in numbers))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DatasetError(path, f"is no table of predictions: {error}") from error
    except UsageError as error:
        raise DatasetError(path, str(error)) from error


def as_table(predictions: Predictions) -> pa.Table:
    """Return predictions as the table that predictions-ARM.parquet holds, sorted by key."""
    import pyarrow as pa

    some = predictions.ordered(sorted(predictions.keys))
    types = (pa.string(), pa.int32(), pa.int32(), pa.float32())
    values: tuple[Any, ...] = (some.keys, some.labels, some.predicted, some.confidence)
    return pa.table({name: pa.array(v, kind) for name, v, kind in zip(COLUMNS, values, types, strict=True)})

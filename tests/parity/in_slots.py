"""Images through the slots of a model, as the runner does it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from fgfast.records import Detections, Image


def alone(model: Any, image: Image, *more: Any) -> Any:
    """An image through a slot of its own."""
    return together(model, [(image, *more)])[0]


def together(model: Any, rows: list[tuple[Any, ...]], slot: Any = None) -> list[Any]:
    """Images of one bucket through one slot, filled by a thread each."""
    (bucket,) = {model.bucket(*row) for row in rows}
    slot = slot or model.slot(bucket)
    threads = [threading.Thread(target=model.fill, args=(slot, n, *row)) for n, row in enumerate(rows)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    model.launch(slot, len(rows))
    model.wait(slot)
    return [model.read(slot, n) for n in range(len(rows))]


def same_bits(ours: Detections, theirs: Detections) -> None:
    assert ours.labels == theirs.labels
    np.testing.assert_array_equal(ours.boxes, theirs.boxes)
    np.testing.assert_array_equal(ours.scores, theirs.scores)

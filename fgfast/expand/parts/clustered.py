"""Parts by k-means over cells of the subject, and where annotated ones fall among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgfast.expand.kind import Product, Subject, Table
from fgfast.expand.parts.annotated import EMPTY
from fgfast.expand.parts.features import Cells, Features, Once
from fgfast.expand.parts.fitting import Centres, Fitted
from fgfast.expand.parts.shown import (
    HEAT_MAPS,
    OVERVIEWS,
    PART_MAPS,
    PARTS,
    Cropping,
    Places,
    overview,
    rows_and_crops,
    stacked,
)
from fgfast.io.encode import encode_grey
from fgfast.ops.clusters import nearest
from fgfast.ops.parts import (
    NO_PART,
    cell_at,
    cells_inside,
    filled,
    grid_of,
    membership_maps,
    part_centres,
    spread_labels,
)
from fgfast.records import Bool, Size

IMAGE_PARTS = Table("image_parts", {"part": "int32", "x": "float32", "y": "float32", "share": "float32"})
ANNOTATED = Table(
    "annotated",
    {
        "part": "int32",
        "name": "string",
        "x": "float32",
        "y": "float32",
        "visible": "bool",
        "found": "int32",
        "found_in_image": "int32",
    },
)

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class ClusteredStep:
    """Makes the products of parts by k-means.

    Attributes:
        features: of cells.
        fitted: the centres, fitted at first use.
        parts: number of parts.
        cropping: how crops are cut.
        map_side: cells along the longer side of a heat map; 0 for no heat maps.
        annotated: names of the annotated parts; empty where there are none.
    """

    features: Features
    fitted: Once[Fitted]
    parts: int
    cropping: Cropping
    map_side: int
    annotated: tuple[str, ...] = ()

    def __call__(self, subject: Subject) -> Product:
        """Return rows, crops, maps and the overview; skipped where the mask is empty."""
        if not subject.bits.any():
            return Product(skipped=EMPTY)
        centres = self.fitted()
        size = Size(*subject.bits.shape)
        of_subject, of_image = self.features(subject.pixels, subject.bits)
        grid = _labels(of_subject, centres.subject, cells_inside(subject.bits, Size(*of_subject.shape[:2])))
        labels = spread_labels(grid, subject.bits)
        points, counts = part_centres(labels, self.parts)
        places = Places([f"part {n}" for n in range(1, self.parts + 1)], points, counts / counts.sum())
        rows, crops = rows_and_crops(subject, places, self.cropping)
        files = {OVERVIEWS: overview(subject, places, labels)}
        files[PART_MAPS] = encode_grey((labels + 1).astype(np.uint8))
        if self.map_side:
            files[HEAT_MAPS] = stacked(membership_maps(labels, self.parts, grid_of(size, self.map_side)))
        tables: dict[str, list[Mapping[str, Any]]] = {PARTS.name: rows}
        if centres.image is not None:
            everywhere = _labels(of_image, centres.image, np.ones(of_image.shape[:2], np.bool_))
            tables[IMAGE_PARTS.name] = self._image_rows(everywhere, size)
            tables[ANNOTATED.name] = self._annotated_rows(subject, filled(grid), everywhere)
        return Product(files=files, several=crops, rows=tables)

    def _image_rows(self, labels: Labels, size: Size) -> list[Mapping[str, Any]]:
        """Return where the clusters of the whole image are, from (rows, columns) int64."""
        points, counts = part_centres(labels, self.parts)
        points = points * (size.width / labels.shape[1], size.height / labels.shape[0])
        return [
            {"part": number, "x": x if count else None, "y": y if count else None, "share": count / labels.size}
            for number, ((x, y), count) in enumerate(zip(points.tolist(), counts.tolist(), strict=True), 1)
        ]

    def _annotated_rows(self, subject: Subject, grid: Labels, everywhere: Labels) -> list[Mapping[str, Any]]:
        """Return the annotated parts, each with the found part under it: the nearest one of the subject."""
        rows: list[Mapping[str, Any]] = []
        size = Size(*subject.bits.shape)
        for number, (name, (x, y, visible)) in enumerate(
            zip(self.annotated, subject.given["points"], strict=True) if subject.given["points"] else (), 1
        ):
            at = cell_at(x, y, size, Size(*grid.shape)) if visible else None
            rows.append(
                {
                    "part": number,
                    "name": name,
                    "x": x if visible else None,
                    "y": y if visible else None,
                    "visible": bool(visible),
                    "found": None if at is None else int(grid[at]) + 1,
                    "found_in_image": None if at is None else int(everywhere[at]) + 1,
                }
            )
        return rows


def _labels(cells: Cells, centres: Centres, inside: Bool) -> Labels:
    """Return the nearest centre of each cell inside, `NO_PART` elsewhere: (rows, columns) int64."""
    labels = np.full(inside.shape, NO_PART)
    labels[inside] = nearest(cells[inside], centres)
    return labels

"""`contours`: polygons with holes, SVG, COCO, numbers of the silhouette, Fourier descriptors, edges inside the mask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast
from xml.sax.saxutils import escape

import numpy as np

from fgfast import ops
from fgfast.expand.kind import Ending, Planned, Product, Request, Subject, Table, option
from fgfast.io import coco
from fgfast.ops import contours, fourier, inside, silhouette
from fgfast.records import Bool, Outcome, Size

EDGES = ("canny", "gradient")
# Canny's thresholds in OpenCV's own samples and in ControlNet's edge maps. They are the same for each image, so that
# images can be compared, and a smooth subject has few edges.
_LOW, _HIGH = 100, 200

COLUMNS = {
    "width": "int32",
    "height": "int32",
    "parts": "int32",
    "holes": "int32",
    "corners": "int32",
    "area": "int64",
    "perimeter": "float64",
    "solidity": "float64",
    "eccentricity": "float64",
    "centre_x": "float64",
    "centre_y": "float64",
    "major_axis": "float64",
    "minor_axis": "float64",
    "orientation": "float64",
    "hu": "list<float64>",
    "efd_order": "int32",
    "efd": "list<float64>",
    "efd_centre_x": "float64",
    "efd_centre_y": "float64",
    "efd_normalised": "list<float64>",
    "efd_roundness": "float64",
    "efd_iou": "float64",
}

# What XML 1.0 does not allow, escaped or not.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _no_canny(options: Any) -> str:
    return "" if options.edges == "canny" else "the edges are not Canny's"


@dataclass(frozen=True)
class Options:
    """The options of `contours`."""

    order: int = option(40, "The number of harmonics of the elliptic Fourier descriptors.", least=1, most=1000)
    edges: str = option("canny", "How edges inside the mask are found.", choices=lambda: EDGES)
    low: int = option(_LOW, "The gradient from which Canny continues an edge.", least=0, most=2000, idle=_no_canny)
    high: int = option(_HIGH, "The gradient from which Canny begins an edge.", least=0, most=2000, idle=_no_canny)
    no_outline: bool = option(False, "Leaves the silhouette's own outermost pixels out of the edge map.")


def plan(request: Request, options: Options) -> Planned:
    """Return the plan.

    Raises:
        MissingExtraError: pyefd is not installed.
    """
    fourier.check_pyefd()
    from importlib.metadata import version

    def finish(ending: Ending) -> list[str]:
        return _write_coco(request, ending)

    return Planned(
        step=Step(options),
        fingerprint={"pyefd": version("pyefd"), "outlines": 1},
        sets=("edges",),
        lossless=True,
        files={"svg": ".svg"},
        tables=(Table("contours", COLUMNS),),
        imports=("pyefd",),
        reasons=(
            f"Fourier descriptors have {options.order} harmonics and describe the largest outline, its holes left out.",
            "Edges are those of the subject alone: around it, each pixel has the colour of the nearest one inside.",
        ),
        finish=finish,
    )


@dataclass(frozen=True)
class Step:
    """Makes the products of one subject."""

    options: Options

    def __call__(self, subject: Subject) -> Product:
        """Return the edge map, the SVG and the row."""
        bits, options = subject.bits, self.options
        if not bits.any():
            return Product(skipped="the mask is empty: there is no outline")
        found = contours.parts(bits)
        edges = inside.edges(
            subject.pixels, bits, cast(inside.Method, options.edges), options.low, options.high, not options.no_outline
        )
        return Product(
            images={"edges": np.repeat(edges[..., None], 3, axis=2)},
            files={"svg": svg(found, Size(*bits.shape), subject.key).encode("utf-8")},
            rows={"contours": [row(found, bits, options.order)]},
        )


def svg(found: list[contours.Part], size: Size, title: str) -> str:
    """Return an SVG of the image's size with one path, in which one unit is a pixel.

    Args:
        found: the parts of a mask.
        size: of the image.
        title: any text.
    """
    named = escape(_NO_XML.sub("\ufffd", title))
    rings = [ring for part in found for ring in (part.outer, *part.holes)]
    path = "".join(_path(ring) for ring in rings)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size.width}" height="{size.height}" '
        f'viewBox="0 0 {size.width} {size.height}"><title>{named}</title>'
        f'<path fill-rule="evenodd" shape-rendering="crispEdges" d="{path}"/></svg>\n'
    )


def _path(ring: contours.Points) -> str:
    """Return an outline as commands of an SVG path: one move, then steps along rows and columns in turn."""
    steps = np.diff(ring, axis=0)
    alongs = np.where(steps[:, 0] != 0, "h", "v").tolist()
    x, y = ring[0].tolist()
    return f"M{x} {y}" + "".join(map("{}{}".format, alongs, steps.sum(axis=1).tolist())) + "z"


def row(found: list[contours.Part], bits: Bool, order: int) -> dict[str, Any]:
    """Return the row of a mask that is not empty.

    Args:
        found: its parts.
        bits: (H, W) bool.
        order: the number of harmonics.
    """
    rings = [ring for part in found for ring in (part.outer, *part.holes)]
    outer = [part.outer for part in found]
    largest = outer[int(contours.twice_areas(outer).argmax())]
    area = int(np.count_nonzero(bits))
    around = silhouette.ellipse(bits)
    described = fourier.descriptors(fourier.middles(largest), order)
    return {
        "width": bits.shape[1],
        "height": bits.shape[0],
        "parts": len(found),
        "holes": len(rings) - len(found),
        "corners": sum(map(len, rings)),
        "area": area,
        "perimeter": silhouette.perimeter(bits),
        "solidity": area / silhouette.hull_area(np.concatenate(outer)),
        "eccentricity": around.eccentricity,
        "centre_x": around.x,
        "centre_y": around.y,
        "major_axis": around.major,
        "minor_axis": around.minor,
        "orientation": around.orientation,
        "hu": silhouette.hu_moments(bits).tolist(),
        "efd_order": order,
        "efd": described.harmonics.ravel().tolist(),
        "efd_centre_x": described.centre[0],
        "efd_centre_y": described.centre[1],
        "efd_normalised": described.normalised.ravel().tolist(),
        "efd_roundness": described.roundness,
        "efd_iou": fourier.rebuilt_iou(largest, described),
    }


def polygons(outcome: Outcome) -> list[list[int]]:
    """Return the mask of an outcome as COCO's polygons: x y x y ... of each part, its holes joined to its outline."""
    assert outcome.rle is not None and outcome.size is not None
    bits = ops.rle_decode(outcome.rle, outcome.size.height, outcome.size.width)
    return [contours.joined(part, bits).ravel().tolist() for part in contours.parts(bits)]


def _write_coco(request: Request, ending: Ending) -> list[str]:
    """Write instances.json, of the stored images' frame, and return its name."""
    name = "instances.json"
    data = request.twin.dataset
    labels = {o.key: request.sample(o.key).label for o in ending.outcomes}
    with coco.instances(
        ending.target(name), labels, data.classes, data.name, frame="original", polygons=polygons
    ) as add:
        for outcome in ending.outcomes:
            add(outcome)
    return [name]

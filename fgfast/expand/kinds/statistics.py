"""Statistics of subjects: histograms of colours, texture, SIFT and ORB keypoints, all from inside the mask.

Everything is computed on the stored image. Nothing is computed on a cut-out, whose edge would count.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgfast.expand import statistics_plot
from fgfast.expand.kind import NOTHING, Planned, Product, Request, Subject, Table, option
from fgfast.io.encode import deflater, encode_png
from fgfast.ops import histograms, keypoints, texture
from fgfast.ops.geometry import mask_box
from fgfast.ops.keypoints import Keypoints
from fgfast.records import Bool, Float32, UInt8

KEYPOINTS = ("both", "sift", "orb", "none")
DISTANCES = (1, 2, 4)
"""Pixels between the two of a pair: one, and two doublings of it."""
LEVELS = 32
"""Grey levels of the co-occurrence matrix: 8 values each, so that the pairs of a small subject fill it."""

TOO_LARGE = "too large for SIFT"
"""The flag of an image whose SIFT keypoints would take too much memory."""

_FIND: Mapping[str, tuple[Callable[[UInt8, Bool], Keypoints], Callable[[Keypoints], Float32]]] = {
    "sift": (keypoints.sift, keypoints.sift_reach),
    "orb": (keypoints.orb, keypoints.orb_reach),
}


@dataclass(frozen=True, slots=True)
class Options:
    """How statistics are made."""

    bins: int = option(32, "Sets the number of bins of each histogram.", least=2, most=256)
    keypoints: str = option("both", "Selects which keypoints are found.", choices=lambda: KEYPOINTS)
    strongest: int = option(
        500,
        "Keeps at most this many SIFT and this many ORB keypoints of an image: independent ones before others, then by "
        "response.",
        least=1,
        most=1_000_000,
    )
    independent: bool = option(
        False, "Leaves out keypoints that may depend on the background (the column independent says which)."
    )
    no_plots: bool = option(
        False, "Draws no plots of the statistics beside those of the unmasked image; they take half of the time."
    )


def plan(request: Request, options: Options) -> Planned:
    """Plan statistics: a table of a row per image, and one per kind of keypoints."""
    kinds = kinds_of(options.keypoints)
    reasons = [f"histograms of {options.bins} bins; texture of {LEVELS} grey levels, {_words(DISTANCES)} px apart"]
    reasons += [f"{'SIFT and ORB' if len(kinds) == 2 else kinds[0].upper()} keypoints"] if kinds else []
    return Planned(
        step=Statistics(options),
        imports=("scipy.spatial",),
        fingerprint=_versions(not options.no_plots),
        files=NOTHING if options.no_plots else {"plots": ".png"},
        shown="" if options.no_plots else "plots",
        tables=(Table("statistics", _columns(kinds)), *(Table(kind, _KEYPOINT_COLUMNS) for kind in kinds)),
        reasons=tuple(reasons),
        annotated=False,
    )


def kinds_of(chosen: str) -> tuple[str, ...]:
    """Return the kinds of keypoints of an option: "sift", "orb", both or none."""
    return tuple(_FIND) if chosen == "both" else tuple(kind for kind in _FIND if kind == chosen)


def _words(numbers: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _versions(plots: bool) -> Mapping[str, Any]:
    """Return what the values depend on besides the options: OpenCV, and of plots the encoder."""
    import cv2

    return {"opencv": cv2.__version__, "numpy": importlib.metadata.version("numpy")} | (
        {"deflate": deflater()} if plots else {}
    )


_KEYPOINT_COLUMNS: Mapping[str, str] = {
    **dict.fromkeys(("x", "y", "size", "angle", "response"), "float32"),
    "octave": "int32",
    "layer": "int32",
    "edge_distance": "float32",
    "edge_sizes": "float32",
    "independent": "bool",
    "descriptor": "binary",
}


def _columns(kinds: tuple[str, ...]) -> Mapping[str, str]:
    """Return the columns of the table of images."""
    columns = {"pixels": "int64", "share": "float64"}
    for space, channels in histograms.SPACES.items():
        for channel in channels:
            columns |= {f"{space}_{channel}": "list<int64>"}
        columns |= {f"{space}_mean": "list<float64>", f"{space}_deviation": "list<float64>"}
    columns |= {"lbp": "list<int64>", "glcm_pairs": "list<int64>"}
    columns |= {f"glcm_{name}": "list<float64>" for name in texture.MEASURES}
    for kind in kinds:
        columns |= {f"{kind}_keypoints": "int32", f"{kind}_independent": "int32"}
    return columns


@dataclass(frozen=True, slots=True)
class Statistics:
    """The step: subject -> rows, and a plot."""

    options: Options

    def __call__(self, subject: Subject) -> Product:
        """Compute the statistics of a subject."""
        import cv2

        if not subject.bits.any():
            return Product(skipped="the mask has no subject pixel, so that there is nothing to count")
        grey = cv2.cvtColor(subject.pixels, cv2.COLOR_RGB2GRAY)
        box = _around(subject.bits)
        row: dict[str, Any] = {"pixels": int(subject.bits.sum()), "share": float(subject.bits.mean())}
        row |= dict(_colours(subject.pixels[box], subject.bits[box], self.options.bins))
        row |= dict(_texture(grey[box], subject.bits[box]))
        product = Product(rows={"statistics": [row]})
        drawn: dict[str, tuple[Keypoints, Bool]] = {}
        for kind in kinds_of(self.options.keypoints):
            if kind == "sift" and grey.size > keypoints.SIFT_MOST_PIXELS:
                product.flags = (TOO_LARGE,)
                continue
            find, reach = _FIND[kind]
            found = find(grey, subject.bits)
            distances = keypoints.edge_distances(found.points, subject.bits)
            free: Bool = distances > reach(found)
            row |= {f"{kind}_keypoints": len(found), f"{kind}_independent": int(free.sum())}
            kept = self._kept(free)
            found, distances, free = found[kept], distances[kept], free[kept]
            product.rows[kind] = [_row(found, distances, free, n) for n in range(len(found))]
            drawn[kind] = found, free
        if not self.options.no_plots:
            plot = statistics_plot.draw(subject.pixels, subject.bits, grey, drawn, self.options.strongest)
            product.files["plots"] = encode_png(plot)
        return product

    def _kept(self, free: Bool) -> NDArray[np.intp]:
        """Return the indices of the keypoints that are kept; `free` says whether each is independent."""
        # Independent ones first: which of them are kept must not depend on the background, either.
        order = np.argsort(~free, kind="stable")
        if self.options.independent:
            order = order[: int(free.sum())]
        return order[: self.options.strongest]


def _around(bits: Bool) -> tuple[slice, slice]:
    """Return the rows and columns around a subject, outside of which nothing counts but keypoints."""
    box = mask_box(bits)
    assert box is not None
    x0, y0, x1, y1 = map(int, box)
    return slice(y0, y1), slice(x0, x1)


def _colours(pixels: UInt8, bits: Bool, bins: int) -> Iterator[tuple[str, list[int] | list[float]]]:
    """Yield column and value of the histograms, means and standard deviations of all channels."""
    for space, channels in histograms.SPACES.items():
        values = histograms.inside(histograms.converted(pixels, space), bits)
        for n, channel in enumerate(channels):
            counts = histograms.histogram(values[:, n], bins, histograms.values_of(space, channel))
            yield f"{space}_{channel}", counts.tolist()
        moments = [histograms.moments(values[:, n]) for n in range(len(channels))]
        yield f"{space}_mean", [mean for mean, _ in moments]
        yield f"{space}_deviation", [deviation for _, deviation in moments]


def _texture(grey: UInt8, bits: Bool) -> Iterator[tuple[str, list[Any]]]:
    """Yield column and value of the texture; None in a list where there is no pair at that distance."""
    yield "lbp", texture.binary_patterns(grey, bits).tolist()
    matrices = [texture.cooccurrence(grey, bits, LEVELS, distance) for distance in DISTANCES]
    yield "glcm_pairs", [int(matrix.sum()) // 2 for matrix in matrices]
    measures = [texture.haralick(matrix) for matrix in matrices]
    for name in texture.MEASURES:
        yield f"glcm_{name}", [measure[name] for measure in measures]


def _row(found: Keypoints, distances: Float32, free: Bool, n: int) -> Mapping[str, Any]:
    """Return the row of one keypoint; its distance is None where the mask has no edge."""
    near = bool(np.isfinite(distances[n]))
    return {
        "x": float(found.points[n, 0]),
        "y": float(found.points[n, 1]),
        "size": float(found.sizes[n]),
        "angle": float(found.angles[n]),
        "response": float(found.responses[n]),
        "octave": int(found.octaves[n]),
        "layer": int(found.layers[n]),
        "edge_distance": float(distances[n]) if near else None,
        "edge_sizes": float(distances[n] / found.sizes[n]) if near else None,
        "independent": bool(free[n]),
        "descriptor": found.descriptors[n].tobytes(),
    }

"""Canvases, the padded input sizes of detectors: the session of each image, and images that can share a batch."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fgfast.backends.session import Session
from fgfast.errors import GraphError
from fgfast.graphs import Contract
from fgfast.records import Size
from fgfast.runner.batching import MOST_OPEN

# SIZE_DIVISIBILITY of the references' pyramid backbones: the stride of their last map.
CANVAS_MULTIPLE = 32

# Step in pixels of a canvas's longer edge where images of several sizes share a canvas. With a shorter edge of 800,
# 4:3, 3:2 and 16:9 end a few pixels below a multiple; other ratios lose 3 % on average.
BUCKET_STEP = 64

# Mean pixels of an image's canvas in those of the largest, by the number of canvases, the two that hold every image
# included: the table of fgfast.models.detic.canvas, whose two columns hardly differ.
_SHARES = {2: 1.0, 4: 0.92, 6: 0.87, 7: 0.865, 9: 0.86}
# The same where each image has its own, and where the longer edge grows in steps of BUCKET_STEP.
_OWN_SHARE, _STEPS_SHARE = 0.84, 0.85

# Width to height of the commonest photographs, square ones included; see fgfast.models.detic.canvas for the choice.
_COMMON_RATIOS = (1, 4 / 3, 3 / 2)


def canvas_of(sizes: Iterable[Size], multiple: int = CANVAS_MULTIPLE) -> Size:
    """Return the smallest canvas in steps of `multiple` pixels that holds all images of these sizes, in pixels."""
    if multiple % CANVAS_MULTIPLE:
        raise ValueError(f"a canvas grows in multiples of {CANVAS_MULTIPLE}, not of {multiple}")
    height, width = map(max, zip(*sizes, strict=True))
    return Size(-(-height // multiple) * multiple, -(-width // multiple) * multiple)


def common_canvases(shorter: int, longest: int) -> tuple[Size, ...]:
    """Return the canvases of common photographs, landscape and portrait, resized by one rule.

    Args:
        shorter, longest: pixels; the shorter edge becomes `shorter` unless the longer would exceed `longest`.

    Returns:
        Canvases in pixels; the first two hold every image.
    """
    widths = (longest, *(min(longest, round(shorter * ratio)) for ratio in _COMMON_RATIOS))
    wide = [canvas_of([Size(shorter, width)]) for width in widths]
    turned = [Size(*canvas[::-1]) for canvas in wide]
    return tuple(dict.fromkeys(canvas for pair in zip(wide, turned, strict=True) for canvas in pair))


def mean_share(canvases: int | None, batch: int = 1) -> float:
    """Return the work of a mean photograph, as a share of the work on the largest canvas, on which models are timed.

    Args:
        canvases: number of fixed ones; None where they follow the images' sizes, see AnyCanvas.
        batch: largest number of images per call.
    """
    if canvases is None:
        return _OWN_SHARE if batch == 1 else _STEPS_SHARE
    return min((share for number, share in _SHARES.items() if number <= canvases), default=1.0)


class Canvases(Protocol):
    """Sessions of a detector by canvas. All methods but `session` are fast.

    Attributes:
        device: of all sessions, as torch names it.
        batch: largest number of images per call.
        buckets: number of canvases that images share.
    """

    device: str
    batch: int

    @property
    @abstractmethod
    def buckets(self) -> int: ...

    @abstractmethod
    def bucket(self, size: Size) -> Size:
        """Return the canvas for a resized image of this size."""

    @abstractmethod
    def contract(self, canvas: Size) -> Contract:
        """Return the contract of the session that computes a full batch on this canvas."""

    @abstractmethod
    def takes(self, canvas: Size, rows: int) -> int:
        """Return the images per call of the session for `rows` images: as many, or those of its fixed shapes."""

    @abstractmethod
    def session(self, canvas: Size, rows: int) -> Session:
        """Return the session for `rows` images on this canvas; loading or compiling it may take a while."""

    def shrink(self) -> None:
        """React to a full batch that did not fit into the device's memory; only relevant to fixed shapes."""
        return


class AnyCanvas(Canvases):
    """One session per canvas, made on demand: PyTorch's, which are free to make.

    Args:
        make: makes the session for a canvas and a number of images.
        multiple: step of the canvases in pixels; results do not depend on it.
        batch: largest number of images per bucket. With one, an image has its own canvas; with more, the longer edge
            grows in steps of BUCKET_STEP, so that there are fewer buckets.
        device: of the sessions.
    """

    def __init__(
        self,
        make: Callable[[Size, int], Session],
        multiple: int = CANVAS_MULTIPLE,
        batch: int = 1,
        device: str = "cpu",
    ) -> None:
        self.make, self.multiple, self.batch, self.device = make, multiple, batch, device

    @property
    def buckets(self) -> int:
        """As many as can be open; 1 where a batch is one image, which is launched at once."""
        return 1 if self.batch == 1 else MOST_OPEN

    def bucket(self, size: Size) -> Size:
        height, width = canvas = canvas_of([size], self.multiple)
        if self.batch == 1:
            return canvas
        longer = -(-max(height, width) // BUCKET_STEP) * BUCKET_STEP
        return Size(height, longer) if width >= height else Size(longer, width)

    def contract(self, canvas: Size) -> Contract:
        return self.make(canvas, self.batch).contract

    def takes(self, canvas: Size, rows: int) -> int:
        return rows

    def session(self, canvas: Size, rows: int) -> Session:
        return self.make(canvas, rows)


@dataclass(frozen=True, slots=True)
class Fixed:
    """A graph of fixed shapes, and a function that loads its session."""

    contract: Contract
    load: Callable[[], Session]

    @property
    def batch(self) -> int:
        """Images per call."""
        return int(self.contract.inputs[0].shape[0])


class FixedCanvases(Canvases):
    """Graphs of fixed shapes, loaded on demand.

    Args:
        graphs: returns the graph of each canvas for about this number of images per call.
        batch: images per call to start with.
        device: of the sessions.
    """

    def __init__(self, graphs: Callable[[int], Mapping[Size, Fixed]], batch: int = 1, device: str = "cpu") -> None:
        self.device, self._graphs, self._wanted = device, graphs, batch
        self._by_canvas = dict(graphs(batch))
        self._loaded: dict[Size, Session] = {}
        self._loading = threading.Lock()

    @property
    def batch(self) -> int:  # type: ignore[override]
        """Largest number of images per call."""
        return max(graph.batch for graph in self._by_canvas.values())

    @property
    def buckets(self) -> int:
        return len(self._by_canvas)

    def bucket(self, size: Size) -> Size:
        """Return the canvas with the fewest pixels that holds the image.

        Raises:
            GraphError: none does; the message gives the one to export.
        """
        holding = [c for c in self._by_canvas if c[0] >= size[0] and c[1] >= size[1]]
        if not holding:
            height, width = canvas_of([size])
            raise GraphError(
                f"no exported canvas holds an image of {size[0]}x{size[1]} (height x width); there are "
                f"{sorted(map(tuple, self._by_canvas))}: export {height}x{width} as well "
                f"(fgfast export MODEL --canvas {height}x{width})"
            )
        return min(holding, key=lambda canvas: canvas[0] * canvas[1])

    def contract(self, canvas: Size) -> Contract:
        return self._by_canvas[canvas].contract

    def takes(self, canvas: Size, rows: int) -> int:
        return self._by_canvas[canvas].batch

    def session(self, canvas: Size, rows: int) -> Session:
        with self._loading:
            if canvas not in self._loaded:
                self._loaded[canvas] = self._by_canvas[canvas].load()
            return self._loaded[canvas]

    def shrink(self) -> None:
        """Switch to graphs for half as many images, where they exist, and close the loaded ones."""
        if self._wanted == 1:
            return
        with self._loading:
            for session in self._loaded.values():
                session.close()
            self._loaded.clear()
            self._wanted //= 2
            self._by_canvas = dict(self._graphs(self._wanted))

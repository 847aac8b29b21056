"""The canvases of Detic's graphs of fixed shape: every image has one, and a common one has a close one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fgfast.backends.session import Session  # noqa: E402
from fgfast.bench.simulate_images import CUB  # noqa: E402
from fgfast.methods import ModelSpec  # noqa: E402
from fgfast.models.detic.build import build_detic  # noqa: E402
from fgfast.models.detic.canvas import CANVASES, LARGEST, LARGEST_TURNED  # noqa: E402
from fgfast.models.detic.config import SWIN_B  # noqa: E402
from fgfast.models.detic.model import Detic  # noqa: E402
from fgfast.models.detic.sessions import detic_in_torch  # noqa: E402
from fgfast.models.detic.split import SplitDetic  # noqa: E402
from fgfast.models.detic.transform import resized_size  # noqa: E402
from fgfast.models.detic.vocabulary import classifier  # noqa: E402
from fgfast.models.serving.canvases import AnyCanvas, Canvases, common_canvases  # noqa: E402
from fgfast.records import Size  # noqa: E402


@pytest.fixture(scope="module")
def nano() -> Detic:
    return build_detic(ModelSpec("detic_nano", "random:0"))


def resized(height: int, width: int) -> Size:
    return resized_size(height, width, SWIN_B.shorter_edge, SWIN_B.longest_edge)


def megapixels(canvases: Canvases) -> float:
    """Mean over CUB's images."""
    sizes = {size: canvases.bucket(resized(*size)) for size in CUB}
    return sum(n * sizes[size].height * sizes[size].width for size, n in CUB.items()) / sum(CUB.values()) / 1e6


def test_every_image_has_a_canvas_and_a_common_one_a_close_one(nano: Detic) -> None:
    canvases = detic_in_torch(nano, "recorded", batch=4)
    for height in range(1, 4000, 37):
        for width in (height, height + 1, 2 * height, 1600, 4000):
            for size in (resized(height, width), resized(width, height)):
                canvas = canvases.bucket(size)
                assert canvas.height >= size.height and canvas.width >= size.width
    common = {(375, 500): (800, 1088), (500, 375): (1088, 800), (333, 500): (800, 1216), (500, 500): (800, 800)}
    assert {size: canvases.bucket(resized(*size)) for size in common} == common
    assert canvases.bucket(resized(1080, 1920)) == LARGEST and canvases.bucket(resized(1920, 1080)) == LARGEST_TURNED
    assert canvases.buckets == len(CANVASES) == 7


def test_the_work_per_image(nano: Detic) -> None:
    """The figures of fgfast.models.detic.canvas: 13 % less than with two canvases, 3 % more than is possible."""

    def never(canvas: Size, rows: int) -> Session:
        raise AssertionError

    found = [detic_in_torch(nano, form, batch=4) for form in ("recorded", "compiled+recorded")]
    assert [round(megapixels(c), 2) for c in (*found, AnyCanvas(never))] == [0.93, 1.08, 0.90]
    assert found[1].buckets == 2  # each is compiled


@pytest.mark.parametrize(
    ("make", "buckets"),
    [
        (lambda nano: detic_in_torch(nano), 1),
        (lambda nano: detic_in_torch(nano, batch=4), 8),
        (lambda nano: detic_in_torch(nano, "recorded"), 7),
    ],
    ids=["one by one", "eager", "recorded"],
)
def test_the_number_of_open_batches(nano: Detic, make: Callable[[Detic], Canvases], buckets: int) -> None:
    assert make(nano).buckets == buckets


def test_canvases_of_other_rules() -> None:
    assert common_canvases(640, 640) == ((640, 640),)
    assert common_canvases(320, 400)[:2] == ((320, 416), (416, 320))


@pytest.mark.full
def test_results_do_not_depend_on_the_canvas(nano: Detic) -> None:
    """A 4:3 image at full size, on its canvas and on the largest."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, 800, 1067, 3), dtype=np.uint8)
    words = classifier(torch.from_numpy(np.random.default_rng(1).standard_normal((3, 512), np.float32)))
    found = []
    for canvas in (Size(800, 1088), LARGEST):
        padded = torch.zeros(1, *canvas, 3, dtype=torch.uint8)
        padded[:, :800, :1067] = torch.from_numpy(pixels)
        session = SplitDetic(nano, canvas, 1, "eager")
        found.append(session.run({"pixels": padded, "sizes": torch.tensor([[800, 1067]]), "vocabulary": words}))
        session.close()
    own, largest = found
    torch.testing.assert_close(largest["scores"], own["scores"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(largest["boxes"], own["boxes"], rtol=1e-3, atol=0.05)

"""Images of one row, of one pixel, of any ratio: every method gives a result, or a reason of its own."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import SHARED
from PIL import Image as pillow

import fgfast
from fgfast.errors import ImageRefusedError
from fgfast.io.encode import encode
from fgfast.io.pixels import MAX_PIXELS
from fgfast.models import grabcut
from fgfast.ops.background import blurred_background, cover
from fgfast.pipeline.stages import Cut
from fgfast.pipeline.work import Work
from fgfast.records import Image, Mask, Prompt, Sample, UInt8

CASES = SHARED.parent / "cases"
# Width and height in pixels.
# Ratio from which a network sees nothing of the shorter side: two pixels per pixel of the longer side it sees.
_THINNEST = {"sam": 2 * 256, "detic": 2 * 1333, "dino": 2 * 224}
SHAPES = [(1, 1), (1, 2), (2, 1), (3, 3), (1, 50), (50, 1), (4000, 1), (1, 4000), (5000, 2), (2, 5000), (3, 4000)]


def strip(width: int, height: int) -> UInt8:
    return np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("segmenter", ["grabcut", "box"])
@pytest.mark.parametrize("background", ["black", "transparent", "blur"])
def test_methods_without_a_network_cut_any_shape(shape: tuple[int, int], segmenter: str, background: str) -> None:
    for crop in ("none", "box", "square"):
        settings = fgfast.Settings(segmenter=segmenter, background=background, crop=crop)
        for box in (None, (0, 0, *shape)):
            cutout = fgfast.cut_out(strip(*shape), box, settings=settings)
            assert cutout.mask.bits.shape == shape[::-1]
            if crop == "none":
                assert cutout.size == shape[::-1]
            read = pillow.open(io.BytesIO(encode(cutout.pixels, ".png", 95)))
            assert read.size == cutout.size[::-1]


@pytest.mark.parametrize("shape", SHAPES)
def test_grabcut_gives_a_mask_for_any_box(shape: tuple[int, int]) -> None:
    width, height = shape
    for box in ((0, 0, width, height), (0.2, 0.2, width - 0.2, height - 0.2), (-5, -5, width + 5, height + 5)):
        assert grabcut.segment(strip(*shape), np.array(box, np.float32)).shape == (height, width)


@pytest.mark.parametrize("shape", SHAPES)
def test_backgrounds_have_the_size_wanted(shape: tuple[int, int]) -> None:
    bits = np.zeros(shape[::-1], np.bool_)
    bits[0, 0] = True
    assert blurred_background(strip(*shape), bits).shape == (*shape[::-1], 3)
    assert cover(strip(*shape), 60, 40).shape == (40, 60, 3)
    assert cover(strip(60, 40), *shape).shape == (*shape[::-1], 3)


def test_of_a_thin_background_only_the_middle_is_scaled() -> None:
    thin = np.zeros((1, 4000, 3), np.uint8)
    thin[:, 1990:2010] = 255
    assert (cover(thin, 500, 500) == 255).all()


@pytest.fixture(scope="module")
def networks() -> Iterator[dict[str, Any]]:
    torch = pytest.importorskip("torch", reason="models need the extra models")
    pytest.importorskip("transformers", reason="Grounding DINO needs the extra text")
    from fgfast.studies import torchvision_shim

    torchvision_shim.declare()
    from fgfast.methods import ModelSpec
    from fgfast.models.detic.build import build_detic
    from fgfast.models.detic.config import NANO
    from fgfast.models.detic.detector import DeticDetector
    from fgfast.models.detic.sessions import detic_in_torch
    from fgfast.models.grounding_dino.sessions import build
    from fgfast.models.sam.build import build_sam
    from fgfast.models.sam.sessions import sam_in_torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    words = np.random.default_rng(0).normal(size=(2, 512)).astype(np.float32)
    yield {
        "sam": sam_in_torch(build_sam(ModelSpec("sam_tiny256", "random:0"))),
        "detic": DeticDetector(
            detic_in_torch(build_detic(ModelSpec("detic_nano", "random:0"))), NANO, ("a", "b"), words
        ),
        "dino": build(ModelSpec("grounding_dino_tiny", "random:0"), ("bird",), 0.0, 0.0),
    }
    torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["sam", "detic", "dino"])
def test_networks_answer_or_find_an_image_too_thin(networks: dict[str, Any], name: str, shape: tuple[int, int]) -> None:
    from fgfast.runner import run_batch

    width, height = shape
    image, box = Image(strip(*shape)), np.array([0, 0, width, height], np.float32)
    given = (image, box) if name == "sam" else (image,)
    if max(shape) / min(shape) > _THINNEST[name]:
        with pytest.raises(ImageRefusedError, match=f"{width}x{height}") as caught:
            run_batch(networks[name], [given])
        assert caught.value.reason == "too thin"
        return
    (found,) = run_batch(networks[name], [given])
    if name == "sam":
        assert networks[name].finish(found, height, width).bits.shape == (height, width)
    else:
        assert np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()
        assert (found.boxes >= 0).all() and (found.boxes <= np.array([width, height] * 2)).all()


@pytest.mark.full
@pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is not here")
def test_the_thin_strip_with_sam_at_full_size(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="models need the extra models")
    settings = fgfast.Settings(segmenter="sam_vit_b", model_weights="random:0", detector="center", devices="cpu")
    report = fgfast.convert(CASES / "16-thin-strip", tmp_path / "out", settings=settings)
    assert report.failures == {"too thin": 1} or report.counts["failed"] == 0


def work(width: int, height: int, box: tuple[float, ...]) -> Work:
    bits = np.zeros((height, width), np.bool_)
    pixels = np.zeros((height, width, 3), np.uint8)
    prompt = Prompt(np.array(box, np.float32), "box")
    return Work(
        0, Sample("wide.png", Path("wide.png")), "wide.png", image=Image(pixels), prompt=prompt, mask=Mask(bits)
    )


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize(
    ("width", "height", "pad", "side"),
    [(18_000, 200, 0.0, 14_400), (200, 18_000, 0.0, 14_400), (3000, 2000, 10.0, 50_400), (13_400, 10, 0.2, 15_008)],
)
def test_a_crop_that_nobody_could_open_is_too_large(
    width: int, height: int, pad: float, side: int, alpha: bool
) -> None:
    background = fgfast.Background("transparent") if alpha else fgfast.Background()
    item = work(width, height, (0.1 * width, 0.1 * height, 0.9 * width, 0.9 * height))
    with pytest.raises(ImageRefusedError, match=rf"wide\.png: its square crop has {side}x{side} pixels") as caught:
        Cut(background, None, "square", pad)(item)
    assert caught.value.reason == "too large"
    assert side * side > MAX_PIXELS
    Cut(background, None, "box", min(pad, 0.1))(item)
    assert item.cutout is not None


@pytest.mark.filterwarnings("error")
def test_a_panorama_becomes_a_square_that_pillow_opens_or_fails_alone(tmp_path: Path) -> None:
    folder = tmp_path / "views"
    folder.mkdir()
    pillow.fromarray(strip(300, 20)).save(folder / "small.png")
    pillow.fromarray(np.full((200, 18_000, 3), 90, np.uint8)).save(folder / "p.png")
    settings = fgfast.Settings(segmenter="box", detector="center", crop="square", devices="cpu")
    sources = [folder, *[CASES / "15-panorama-square"][: CASES.is_dir()]]
    for n, source in enumerate(sources):
        report = fgfast.convert(source, tmp_path / f"out{n}", settings=settings)
        assert report.failures == {"too large": 1}
        for written in report.twin.rglob("*.png"):
            pillow.open(written).load()
    assert report.counts["done"] == (source == folder)

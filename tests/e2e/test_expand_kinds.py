"""Every kind over odd images: each sample ends as an outcome with a sentence, and what is written loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import fgfast
from fgfast.config import Settings
from fgfast.datasets import open_dataset
from fgfast.expand.plan import make_plan
from fgfast.expand.run import run
from fgfast.expand.table import names
from fgfast.io.ledger import Ledger

pytest.importorskip("pyarrow", reason="tables need the extra expand")
pytest.importorskip("pyefd", reason="contours need the extra expand")
pytest.importorskip("trimesh", reason="meshes need the extra expand")

KINDS = [name for name in names() if name != "waterbirds"]  # which is for CUB alone, and has tests of its own
WRITTEN = 9


def made(height: int, width: int, generator: np.random.Generator) -> Image.Image:
    pixels = generator.integers(0, 90, (height, width, 3), np.uint8)
    pixels[height // 4 : 3 * height // 4 + 1, width // 4 : 3 * width // 4 + 1] = [200, 80, 60]
    return Image.fromarray(pixels)


def odd_images(folder: Path) -> tuple[Path, Path]:
    """A folder of odd images, and one of their masks."""
    root, masks, generator = folder / "odd", folder / "masks", np.random.default_rng(0)
    for label in ("one", "two"):
        (root / label).mkdir(parents=True)
    turned = Image.Exif()
    turned[0x112] = 6
    made(60, 90, generator).save(root / "one/exif.jpg", exif=turned)
    made(50, 70, generator).convert("L").save(root / "one/grey.jpg")
    made(50, 70, generator).convert("RGBA").save(root / "one/rgba.png")
    made(30, 200, generator).save(root / "one/wide.png")
    made(80, 80, generator).save(root / "one/border.png")
    made(64, 48, generator).convert("CMYK").save(root / "two/cmyk.jpg")
    Image.fromarray((generator.random((40, 50)) * 65535).astype(np.uint16)).save(root / "two/sixteen.png")
    made(1, 1, generator).save(root / "two/pixel.png")
    made(80, 80, generator).save(root / "two/empty.png")
    made(80, 80, generator).save(root / "two/full.png")
    for path in sorted(root.rglob("*.*")):
        with Image.open(path) as image:
            width, height = ImageOps.exif_transpose(image).size
        bits = np.zeros((height, width), np.uint8)
        bits[height // 4 : 3 * height // 4 + 1, width // 4 : 3 * width // 4 + 1] = 255
        if path.stem in ("full", "empty"):
            bits[:] = 255 if path.stem == "full" else 0
        if path.stem == "border":
            bits[:] = 0
            bits[:, :20] = 255
        mask = masks / path.relative_to(root).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(bits).save(mask)
    return root, masks


@pytest.fixture(scope="module", params=["plain", "cropped"])
def source(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the odd images: as it is by default, and with a crop, no masks and transparency."""
    folder = tmp_path_factory.mktemp(request.param)
    root, masks = odd_images(folder)
    more: dict[str, Any] = {"crop": "square", "masks": "none", "background": "transparent", "format": "png"}
    settings = Settings(
        segmenter="annotations", mask_dir=masks, devices="cpu", **(more if request.param == "cropped" else {})
    )
    report = fgfast.convert(str(root), folder / "run", settings=settings, in_process=True)
    assert report.counts["done"] == WRITTEN and report.failures == {"empty mask": 1}
    return folder / "run"


@pytest.mark.parametrize("kind", KINDS)
def test_each_odd_image_ends_as_an_outcome_with_a_sentence(kind: str, source: Path, tmp_path: Path) -> None:
    with make_plan(source, kind, tmp_path / "out") as plan:
        report = run(plan, in_process=True)
        sets = plan.planned.sets
    assert "1 of the run's images are failed: passed over" in plan.reasons
    assert sum(report.counts.values()) == report.total == WRITTEN
    with Ledger(tmp_path / "out/fgfast/ledger.sqlite", write=False) as ledger:
        outcomes = list(ledger.outcomes())
    for outcome in outcomes:
        assert "internal error" not in outcome.reasons
        assert outcome.status not in ("failed", "skipped") or outcome.key in outcome.detail
    written = {outcome.key for outcome in outcomes if outcome.twin is not None}
    assert len(written) >= WRITTEN - 2
    for folder in sets:
        there = open_dataset(str(tmp_path / "out" / folder))
        assert {sample.key.partition(".")[0] for sample in there.samples} == {key.partition(".")[0] for key in written}
        assert {sample.label for sample in there.samples} == {"one", "two"}
        for sample in there.samples:
            with Image.open(tmp_path / "out" / folder / sample.key) as image:
                image.load()


def test_torchvision_loads_what_is_written(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torchvision needs torch")
    from fgfast.studies.torchvision_shim import declare

    declare()
    pytest.importorskip("torchvision", reason="the loader is torchvision's")
    from torchvision.datasets import ImageFolder

    with make_plan(source, "backgrounds", tmp_path / "out") as plan:
        report = run(plan, in_process=True)
        (folder,) = plan.planned.sets
    images = ImageFolder(tmp_path / "out" / folder)
    assert len(images) == report.counts["done"] + report.counts["flagged"] and images.classes == ["one", "two"]
    assert all(image.mode == "RGB" for image, _ in images)

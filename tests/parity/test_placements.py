"""Both models on one worker, on two that do everything, and on two that share it out: the same bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fgfast
from fgfast.config import Settings

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "images"
    (folder / "class").mkdir(parents=True)
    generator = np.random.default_rng(1)
    for n, (height, width) in enumerate([(120, 160), (160, 120), (120, 160)]):
        coarse = generator.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(folder / "class" / f"{n}.png")
    return folder


def made(images: Path, out: Path, devices: str, placement: str) -> dict[str, str]:
    settings = Settings(
        detector="detic",
        segmenter="sam_vit_b",
        vocabulary="bird,cup",
        model_weights="random:5",
        devices=devices,
        placement=placement,  # type: ignore[arg-type]
    )
    report = fgfast.convert(images, out, settings=settings)
    assert report.counts["failed"] == 0, report
    files = [p for folder in (report.twin, out / ".masks") for p in sorted(folder.rglob("*")) if p.is_file()]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_placements_give_the_same_bytes(images: Path, tmp_path: Path) -> None:
    alone = made(images, tmp_path / "alone", "cpu", "auto")
    assert len(alone) == 6
    for placement in ("replicate", "split"):
        assert made(images, tmp_path / placement, "cpu,cpu", placement) == alone, placement

"""Grad-CAM on photographs: EfficientNet-Lite0's ImageNet weights on 31 images of three albatrosses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from layouts import SHARED

torch = pytest.importorskip("torch", reason="a study needs torch")

from fgfast.studies import torchvision_shim  # noqa: E402

torchvision_shim.declare()
for _name in ("torchvision", "timm", "pyarrow", "matplotlib", "scipy", "statsmodels"):
    pytest.importorskip(_name, reason="a study needs its extra")

from efficientnet_lite0 import weights  # noqa: E402

import fgfast  # noqa: E402
from fgfast.cli import main  # noqa: E402
from fgfast.config import Settings  # noqa: E402
from fgfast.pipeline.twin import Twin  # noqa: E402
from fgfast.studies import gradcam  # noqa: E402
from fgfast.studies.cell import Strategy  # noqa: E402
from fgfast.studies.figures import bootstrap_mean  # noqa: E402
from fgfast.studies.models import build  # noqa: E402
from fgfast.studies.pairs import RunPairs  # noqa: E402
from fgfast.studies.recipes import recipe  # noqa: E402
from fgfast.studies.transforms import Prepare  # noqa: E402

PHOTOS = SHARED / "CUB_200_2011"
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photographs are not here"),
]
ALBATROSS = 146  # ImageNet's class


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the photographs, with GrabCut's masks."""
    out = tmp_path_factory.mktemp("photos") / "run"
    fgfast.convert("cub", out, root=PHOTOS, settings=Settings(segmenter="grabcut"), in_process=True)
    return out


def test_imagenets_albatross_is_seen_where_the_bird_is(run: Path, tmp_path: Path) -> None:
    model = build(str(weights(tmp_path)), 1000, pretrained=True).eval()
    with Twin.open(run) as twin:
        pairs = RunPairs.of(twin)
    # These weights were trained on pixels of (level - 127) / 128.
    cfg = replace(model.cfg, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
    prepare = Prepare(cfg, recipe("quick"), train=False)
    found = [prepare(pairs.pair(n)) for n in range(len(pairs.keys))]
    x, mask = (torch.stack(some) for some in zip(*found, strict=True))
    with torch.no_grad():
        assert (model(x).argmax(1) == ALBATROSS).float().mean() > 0.8
    for maps in (gradcam.maps, gradcam.input_gradients):
        parts = [
            maps(model, some, its, torch.full((len(some),), ALBATROSS), Strategy())
            for some, its in zip(x.split(8), mask.split(8), strict=True)
        ]
        seen = gradcam.looks(torch.cat(parts), mask)
        above = bootstrap_mean((seen.inside - seen.area).numpy())
        assert above.low is not None and above.low > 0.05
        assert (seen.inside > seen.area).float().mean() > 0.9
        assert seen.hit.double().mean() > seen.area.mean() + 0.1
        # A mask that lies elsewhere, half an image away, has less.
        moved = gradcam.looks(torch.cat(parts), mask.roll((112, 112), (2, 3)))
        assert np.nanmean(moved.inside) < np.nanmean(seen.inside) - 0.05


def test_a_study_of_photographs_has_intervals_and_says_how_few_they_are(run: Path, tmp_path: Path) -> None:
    start = weights(tmp_path)
    words = ["study", "crossval", str(run), "--backbone", str(start), "--train-on", "x,x_fg", "--seeds", "3"]
    words += ["--epochs", "2", "--batch", "8", "--image-size", "128", "--out", str(tmp_path / "study"), "--in-process"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    words = ["study", "gradcam", str(tmp_path / "study"), "--out", str(tmp_path / "study_gradcam"), "--in-process"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    page = (tmp_path / "study_gradcam/study.html").read_text()
    assert re.search(r"Only \d+ test images of 3 classes", page)
    table = (tmp_path / "study_gradcam/inside.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * 2 * 2 and all(",3," in line for line in table[1:])

"""The whole job through PyTorch and through ONNX Runtime, on the demo's photographs, with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="exported graphs need the extra export")
pytest.importorskip("onnxscript", reason="exporting needs the extra export")
pytest.importorskip("skimage", reason="the demo's photographs come out of the extra dev")

from demo import build_cub

import fgfast
from fgfast.config import Selection, Settings
from fgfast.export import make
from fgfast.io.ledger import Ledger
from fgfast.methods import ModelSpec
from fgfast.ops import reference
from fgfast.records import Outcome

WEIGHTS = "random:0"
# Issue: masks of IoU >= 0.999, boxes within 0.5 px of the stored image.
MASK_IOU, BOX_PX = 0.999, 0.5
# One of each photograph of the demo, and some of its variations.
IMAGES = 7


@pytest.mark.full
def test_torch_and_onnxruntime_make_the_same_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "cache"))
    build_cub(tmp_path / "CUB_200_2011")
    for model in ("detic", "sam_vit_b"):
        make.export(ModelSpec(model, WEIGHTS), on_message=lambda line: None)
    ours, theirs = (outcomes(tmp_path, backend) for backend in ("onnxruntime", "torch"))
    assert [o.key for o in ours] == [o.key for o in theirs]
    assert len(ours) == IMAGES
    assert sum("detic" in o.box_reason or len(o.others) > 0 for o in theirs) > 0, "Detic found nothing to compare"
    for a, b in zip(ours, theirs, strict=True):
        assert a.box is not None and b.box is not None
        assert np.abs(a.box - b.box).max() <= BOX_PX, a.key
        assert a.rle is not None and b.rle is not None and a.size is not None
        height, width = a.size
        first, second = (reference.rle_decode(rle, height, width) for rle in (a.rle, b.rle))
        overlap = (first & second).sum() / max(1, (first | second).sum())
        assert overlap >= MASK_IOU, f"{a.key}: IoU {overlap}"


def outcomes(folder: Path, backend: str) -> list[Outcome]:
    settings = Settings(
        detector="detic",
        segmenter="sam_vit_b",
        vocabulary="coffee cup,flower,tower,person,camera,cat,bird",
        model_weights=WEIGHTS,
        precision="fp32",
        devices="cpu",
        backend=backend,
        format="png",
    )
    report = fgfast.convert("cub", folder / backend, root=folder, settings=settings, selection=Selection(limit=IMAGES))
    with Ledger(report.out / "fgfast/ledger.sqlite") as ledger:
        return list(ledger.outcomes())

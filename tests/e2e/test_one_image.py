"""One image's way: the files of fgfast that it passes are those that docs/architecture.md lists, and they are few."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from layouts import BUILDERS
from one_image import run_and_trace

from fgfast import ops
from fgfast.config import Selection, Settings
from fgfast.io.ledger import Ledger
from fgfast.pipeline.plan import Plan, make_plan

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"

if not PAGE.is_file():
    pytest.skip("docs/ is not here (it is left out of source distributions)", allow_module_level=True)
if ops.implementation() != "native":
    pytest.skip("the list is that of the native ops, which are not compiled here", allow_module_level=True)


def listed(column: int) -> set[str]:
    """The files with a mark in a column of the table."""
    rows = re.findall(r"^\| `([\w/]+\.py)` \|.*?\| (x?) ?\| (x?) ?\|$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    return {row[0] for row in rows if row[column]}


def plan_of_one(tmp_path: Path, settings: Settings) -> Plan:
    source = BUILDERS["cub"](tmp_path / "data")
    return make_plan("cub", tmp_path / "out", root=source, settings=settings, selection=Selection(limit=1))


def test_grabcut_passes_30_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of_one(tmp_path, Settings(detector="annotations", segmenter="grabcut", devices="cpu"))
    _, files = run_and_trace(plan, tmp_path, monkeypatch)
    assert set(files) == listed(1) and len(files) <= 30


def test_detic_and_sam_convert_an_image_through_45_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's pipeline, with random weights: everything runs, and the masks mean nothing."""
    pytest.importorskip("torch", reason="models need the extra models")
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "cache"))
    models = Settings(detector="detic", segmenter="sam_vit_b", model_weights="random:0", devices="cpu")
    plan = plan_of_one(tmp_path, models)
    report, files = run_and_trace(plan, tmp_path, monkeypatch)
    assert report.counts["done"] + report.counts["flagged"] == 1
    with Ledger(report.out / "fgfast/ledger.sqlite") as ledger:
        (outcome,) = ledger.outcomes()
    assert outcome.quality is not None
    assert outcome.box is not None
    facts = json.loads((report.out / "fgfast/run.json").read_text())
    assert facts["fingerprint"]["weights"] == {"detic": "random:0", "sam_vit_b": "random:0"}
    assert facts["fingerprint"]["precision"] in ("fp32", "bf16")
    assert any(reason.startswith("weights random:0: random") for reason in facts["choices"])
    assert set(files) == listed(2) and len(files) <= 45

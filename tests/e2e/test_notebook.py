"""The notebook runs from top to bottom, in an empty folder, without Jupyter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples/first_steps.ipynb"


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "cache"))
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5 and not any(cell["outputs"] for cell in cells)
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    assert sum(names["report"].counts.values()) == 12 and names["report"].counts["failed"] == 0
    errors = [found for found in names["cutouts"] if isinstance(found, Exception)]
    assert len(names["cutouts"]) == 5 and len(errors) == 1
    with Image.open(tmp_path / "first_steps_cutout.png") as image:
        assert image.size == (320, 240)
    # The subject of the last drawing is found: its box is the annotated one, and most of it is mask.
    x0, y0, x1, y1 = names["box"]
    assert np.asarray(names["cutout"].mask.bits)[y0 + 5 : y1 - 5, x0 + 5 : x1 - 5].mean() > 0.95

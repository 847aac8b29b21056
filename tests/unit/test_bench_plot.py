"""The figure of a result: what is drawn, in which format, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fgfast import figure_files
from fgfast.bench import plot
from fgfast.bench.result import Row, envelope
from fgfast.errors import MissingExtraError, UsageError
from fgfast.runner import Event

pytest.importorskip("matplotlib")
# matplotlib's font parser; Pillow's reader of PNG.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

EVENTS = [
    Event("decode", "cpu", "pool-0", 0.0, 1.0, 1, 0),
    Event("encode", "cpu", "device", 1.0, 3.0, 2, 1),
    Event("write", "cpu", "pool-0", 3.0, 3.5, 1, 0),
]
ROOFLINE = {
    "precision": "bf16",
    "roofs": [{"device": "cpu", "flops": 2e12, "bandwidth": 1e10}],
    "models": [{"name": "sam_vit_b", "intensity": 2100.0, "flops": 5e11}],
    "products": [{"name": "qkv", "intensity": 300.0, "flops": 2e12}],
}
BARS = {"title": "Native ops", "unit": "times as fast", "values": [("nms", 20.0), ("resize", 0.5)], "log": True}
PLOTS = {"events": EVENTS, "roofline": ROOFLINE, "bars": BARS}


def result(**plots: Any) -> dict[str, Any]:
    return envelope("pipeline", [Row("rate", 1.0)], title="A run", rounds=1, plots=plots)


def panels(**plots: Any) -> list[Any]:
    """The axes of each panel, drawn."""
    from matplotlib.figure import Figure

    found = []
    for _, draw in plot._panels(plots):
        axes = Figure().subplots()
        draw(axes)
        found.append(axes)
    return found


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_suffix_chooses_the_format(suffix: str, start: bytes, tmp_path: Path) -> None:
    file = tmp_path / f"run{suffix}"
    figure_files.check(file)
    plot.write(file, result(**PLOTS))
    assert file.read_bytes().startswith(start)


def test_more_panels_make_a_taller_figure_in_the_colours_of_the_stages(tmp_path: Path) -> None:
    heights = []
    for n, plots in enumerate([{"bars": BARS}, {"events": EVENTS}, PLOTS]):
        plot.write(tmp_path / f"{n}.png", result(**plots))
        with Image.open(tmp_path / f"{n}.png") as image:
            heights.append(image.height)
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert heights == sorted(set(heights))
    colour = tuple(bytes.fromhex(plot._COLOURS["encode"][1:]))
    assert (pixels == colour).all(1).sum() > 1000


def test_the_timeline_has_a_row_per_thread_and_a_piece_per_event() -> None:
    timeline, stages = panels(events=EVENTS)
    assert [label.get_text() for label in timeline.get_yticklabels()] == ["cpu device", "cpu pool-0"]
    assert [len(row.get_paths()) for row in timeline.collections] == [1, 2]
    first = timeline.collections[0].get_paths()[0].get_extents()
    assert (first.x0, first.x1) == (1.0, 3.0)
    assert [label.get_text() for label in timeline.get_legend().get_texts()] == ["decode", "encode", "write"]
    assert [bar.get_width() for bar in stages.patches] == [1000.0, 1000.0, 500.0]


def test_bars_on_a_logarithmic_axis_begin_at_one() -> None:
    (axes,) = panels(bars=BARS)
    assert axes.get_xscale() == "log"
    assert [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches] == [(1.0, 20.0), (1.0, 0.5)]
    assert [text.get_text() for text in axes.texts] == ["20", "0.5"]


def test_the_roof_bends_where_memory_suffices() -> None:
    (axes,) = panels(roofline=ROOFLINE)
    (roof,) = axes.lines
    assert (roof.get_xdata()[1], roof.get_ydata()[1]) == (200.0, 2e12)
    assert [text.get_text() for text in axes.texts] == ["sam_vit_b: 0.5 TFLOP/s"]


def test_other_formats_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\.png, \.svg, \.pdf files, not 'run.html'"):
        figure_files.check(Path("run.html"))


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure_files, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"extra 'plot'"):
        figure_files.check(Path("run.png"))

"""The bench of expansions: what it draws, and that its loop makes what an expansion makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fgfast.bench.expand import Bench, measure
from fgfast.bench.expand_birds import draw_bird, make_birds, make_places
from fgfast.bench.result import rows_of
from fgfast.config import Settings
from fgfast.datasets import open_dataset
from fgfast.errors import UnknownNameError
from fgfast.expand import table
from fgfast.pipeline.plan import make_plan
from fgfast.pipeline.run import run

COUNT = 8


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all kinds are measured on, for a few images."""
    folder = tmp_path_factory.mktemp("bench")
    make_birds(folder / "CUB_200_2011", COUNT)
    make_places(folder / "places", COUNT)
    settings = Settings(detector="annotations", segmenter="annotations", masks="none")
    report = run(make_plan("cub", folder / "run", root=folder, settings=settings), in_process=True)
    assert report.total == COUNT and not report.counts["failed"]
    return folder


@pytest.mark.parametrize("number", range(12))
def test_a_drawn_bird_is_whole_and_its_mask_is_exact(number: int) -> None:
    bird = draw_bird(number, 375, 500)
    assert bird.pixels.shape == (375, 500, 3) and bird.mask.shape == (375, 500)
    edge = np.concatenate([bird.mask[0], bird.mask[-1], bird.mask[:, 0], bird.mask[:, -1]])
    assert not edge.any(), "the bird is cut off"
    assert 0.04 < (bird.mask >= 128).mean() < 0.4
    inside = [bird.mask[round(y), round(x)] >= 128 for x, y in bird.parts]
    assert sum(inside) >= 12
    again = draw_bird(number, 375, 500)
    assert np.array_equal(again.pixels, bird.pixels) and np.array_equal(again.mask, bird.mask)


def test_the_birds_are_a_data_set_of_cub(scratch: Path) -> None:
    dataset = open_dataset("cub", scratch)
    assert len(dataset.samples) == COUNT
    assert {sample.split for sample in dataset.samples} == {"train", "test"}
    parts = dataset.parts()
    assert parts is not None and len(parts.names) == 15
    assert dataset.masks() is not None


@pytest.mark.parametrize("kind", [pytest.param(name, marks=pytest.mark.full) for name in table.names()])
def test_every_kind_is_measured(kind: str, scratch: Path) -> None:
    bench = Bench(scratch, kind)
    loop, one = bench.loop(4), bench.run(4, 1)
    bench.compare()
    assert loop.seconds > 0 and loop.cpu >= 0
    assert one.seconds > 0 and one.before > 0 and one.after > 0


def test_another_file_than_the_loops_is_noticed(scratch: Path) -> None:
    bench = Bench(scratch, "contours")
    bench.loop(2)
    spent = bench.run(2, 2)
    assert spent.cpu > 0
    bench.compare()
    file = next(file for file in sorted(bench.theirs.rglob("*")) if file.is_file())
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(AssertionError, match="is another file"):
        bench.compare()


def test_rows_are_those_of_the_kind(tmp_path: Path) -> None:
    result = measure(kinds=["contours"], images=8, rounds=1, workers=2, folder=tmp_path)
    rows = {row.name: row for row in rows_of(result)}
    assert {row.group for row in rows.values()} == {"contours"}
    assert rows["images"].value == 8
    assert rows["2 workers over the loop"].value == pytest.approx(
        rows["2 workers"].value / rows["plain loop"].value, rel=1e-3
    )
    assert result["headline"] == ["contours: 2 workers over the loop", "contours: overhead of 1 worker"]
    assert not list(tmp_path.iterdir())


def test_an_unknown_kind_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="contours"):
        measure(kinds=["contour"], images=8, rounds=1, workers=2, folder=tmp_path)
    assert not list(tmp_path.iterdir())

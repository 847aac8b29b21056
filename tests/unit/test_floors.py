"""The floors of the GPUs: counted operations over the rates of data sheets. The docs' table is held by test_docs."""

from __future__ import annotations

import pytest

from fgfast.bench import floors
from fgfast.bench.result import rows_of
from fgfast.models.sam.architecture import ARCHITECTURES
from fgfast.records import Size

H200 = floors.GPUS[-1]


def test_attention_is_counted_from_the_architecture() -> None:
    # Four blocks of 4096 tokens by 4096, twenty of 25 windows of 196 by 196; scores and sums, 2 FLOP each, width 1024.
    by_hand = 2 * 2 * 1024 * (4 * 4096**2 + 20 * 25 * 196**2) * 1e-12
    assert floors.attention_tflop(ARCHITECTURES["vit_l"]) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(0.354, abs=0.001)


def test_detic_takes_less_on_the_smaller_canvas() -> None:
    assert floors.detic_tflop(Size(800, 1344)) == pytest.approx(0.91)
    assert floors.detic_tflop(Size(800, 1088)) == pytest.approx(0.75, abs=0.01)
    assert 0.15 < floors.detic_share() < 0.3


def test_the_figures_of_an_h200_are_those_of_the_design() -> None:
    floor = floors.floor_of(H200)
    assert floor.products == pytest.approx((2.51 + 0.0036 + 0.75) / 700 * 1e3, rel=0.01)
    assert floor.attention == pytest.approx(0.354 / 320 * 1e3, rel=0.01)
    assert floor.folded == pytest.approx(12.4)
    assert 1e3 / floor.today == pytest.approx(112, rel=0.01)
    assert floor.ms == pytest.approx(floor.products + floor.attention)


@pytest.mark.parametrize("gpu", floors.GPUS, ids=lambda gpu: gpu.name)
def test_every_gpu_has_a_source_and_is_not_measured(gpu: floors.Gpu) -> None:
    floor = floors.floor_of(gpu)
    assert "NVIDIA" in gpu.source
    assert floor.ms < floor.today < floor.folded
    # Peaks scale arithmetic, bandwidth the bytes.
    own = floors.floor_of(H200)
    assert floor.products == pytest.approx(own.products * H200.peak / gpu.peak)
    assert floor.memory == pytest.approx(own.memory * H200.bandwidth / gpu.bandwidth)
    (line,) = [line for line in floors.table() if line.startswith(f"| {gpu.name} |")]
    assert line.endswith(f"| {floors.NOT_MEASURED} |")
    assert f"{floor.products:.1f}" in line


def test_the_command_prints_the_figures_of_the_table() -> None:
    rows = {row.key: row.value for row in rows_of(floors.result())}
    for gpu in floors.GPUS:
        assert rows[f"{gpu.name}: floor"] == pytest.approx(floors.floor_of(gpu).ms, rel=1e-4)

from __future__ import annotations

import json

import encoders
import numpy as np
import pytest
from encoders import ENCODERS, cut_out, decoded, measure

from fgfast.bench.result import rows_of, text_of
from fgfast.bench.text import table
from fgfast.io.encode import deflater, encode, encode_bilevel


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_SIZES", {"30x20": (20, 30, 1), "40x30": (30, 40, 1)})


def test_every_encoder_is_measured_on_everything_it_can_write() -> None:
    result = json.loads(text_of(measure(rounds=1)))
    kinds = {"jpeg": ["jpeg"], "png": ["png rgb", "png rgba"], "mask": ["mask"]}
    written = {(kind, name) for key, ways in ENCODERS.items() for name in ways for kind in kinds[key]}
    expected = {(f"{kind}, {size}", name) for kind, name in written for size in ("30x20", "40x30")}
    rows = {(row.group, row.name): row.value for row in rows_of(result)}
    assert {key for key in rows if ": " not in key[1]} == expected
    assert {"fgfast", "OpenCV", "Pillow", "simplejpeg"} <= {name for _, name in expected}
    for group, name in expected:
        assert rows[group, name] > 0
        assert rows[group, f"{name}: two threads"] > 0
        assert rows[group, f"{name}: size"] > 50
        assert (rows[group, f"{name}: mean error"] == 0) == (not group.startswith("jpeg"))
    text = table(result)
    assert "png rgba, 40x30" in text
    assert f"fgfast deflates with {deflater()}" in text
    assert {row.group.partition(", ")[2] for row in rows_of(measure(rounds=1, large=False))} == {"30x20"}


def test_an_encoder_that_loses_pixels_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS["png"], "lossy", lambda pixels: encode(pixels & 0xFE, ".png", 95))
    with pytest.raises(AssertionError, match=r"farther from the image.*lossy"):
        measure(rounds=1)


def test_cut_outs_are_black_around_the_subject() -> None:
    pixels, bits = cut_out(60, 80)
    assert 0.33 < bits.mean() < 0.41
    assert pixels[~bits].max() == 0
    assert pixels[bits].std() > 20
    np.testing.assert_array_equal(decoded(encode_bilevel(bits)), bits)

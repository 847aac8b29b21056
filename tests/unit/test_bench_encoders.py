from __future__ import annotations

import json
from collections.abc import Iterator

import encoders
import numpy as np
import pytest
from encoders import Encoder, cut_out, decoded, installed, measure, table

from fgfast.io.png import encode_bilevel
from fgfast.io.write import encode


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_SIZES", {"30x20": (20, 30, 1), "40x30": (30, 40, 1)})


def test_every_encoder_is_measured_on_everything_it_can_write() -> None:
    result = json.loads(json.dumps(measure(rounds=1)))
    found, _ = installed()
    kinds = {"jpeg": ["jpeg"], "png": ["png rgb", "png rgba"], "mask": ["mask"]}
    expected = {(size, k, e.name) for size in ("30x20", "40x30") for e in found for key in e.kinds for k in kinds[key]}
    assert {(row["size"], row["kind"], row["encoder"]) for row in result["rows"]} == expected
    assert {"fgfast", "opencv", "pillow", "simplejpeg"} <= {e.name for e in found}
    for row in result["rows"]:
        assert row["ms"] > 0
        assert row["bytes"] > 50
        assert (row["error"] == 0) == (row["kind"] != "jpeg")
    text = table(result)
    assert "png rgba, 40x30" in text
    assert result["deflate"] in text
    assert {row["size"] for row in measure(rounds=1, large=False)["rows"]} == {"30x20"}


def test_an_encoder_that_loses_pixels_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def lossy() -> Iterator[Encoder]:
        yield Encoder("lossy", "", {"png": lambda pixels: encode(pixels & 0xFE, ".png", 95)})

    monkeypatch.setitem(encoders._MAKERS, "lossy", lossy)
    with pytest.raises(AssertionError, match=r"farther from the image.*lossy"):
        measure(rounds=1)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Iterator[Encoder]:
        raise ImportError("No module named 'fastest'")

    monkeypatch.setitem(encoders._MAKERS, "fastest", absent)
    assert "fastest: No module named 'fastest'" in installed()[1]


def test_cut_outs_are_black_around_the_subject() -> None:
    pixels, bits = cut_out(60, 80)
    assert 0.33 < bits.mean() < 0.41
    assert pixels[~bits].max() == 0
    assert pixels[bits].std() > 20
    np.testing.assert_array_equal(decoded(encode_bilevel(bits)), bits)

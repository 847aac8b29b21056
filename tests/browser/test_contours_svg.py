"""SVGs of contours in a real browser: it paints the mask's pixels, and no name runs as a script."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chromium import CHROMIUM, Chromium
from PIL import Image

from fgfast.expand.kinds.contours import svg
from fgfast.ops import contours
from fgfast.records import Size

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome here: apt-get install chromium"
)

HOSTILE = "a/</title><script>document.documentElement.setAttribute('owned', 1)</script>&amp;]]>\x00.jpg"


def test_chromium_paints_the_mask(tmp_path: Path) -> None:
    rows, columns = np.ogrid[:90, :140]
    ring = (rows - 45) ** 2 + (columns - 60) ** 2
    bits = (ring < 40**2) & (ring > 15**2) | (np.random.default_rng(0).random((90, 140)) < 0.05)
    (tmp_path / "mask.svg").write_text(svg(contours.parts(bits), Size(90, 140), HOSTILE), encoding="utf-8")
    with Chromium(tmp_path / "profile") as browser:
        tab = browser.tab((tmp_path / "mask.svg").as_uri(), 140, 90)
        tab.wait("document.querySelector('path') && document.readyState === 'complete'")
        tab.shot(tmp_path / "shot.png")
        assert not tab.run("document.documentElement.hasAttribute('owned')") and not tab.errors()
        assert tab.run("document.querySelector('title').textContent") == HOSTILE.replace("\x00", "\ufffd")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "shot.png").convert("L")) < 128, bits)

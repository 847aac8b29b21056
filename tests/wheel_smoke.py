"""What every release wheel must do in an environment that holds nothing else: cut one image, natively and in NumPy."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import numpy as np
import fgfast
pixels = np.full((80, 120, 3), 90, np.uint8)
pixels[20:60, 40:90] = (220, 40, 40)
with fgfast.Cutter(fgfast.Settings(segmenter="grabcut", background="white")) as cutter:
    cutout = cutter.cut(pixels, (36, 16, 94, 64))
assert cutout.mask.bits[40, 60] and not cutout.mask.bits[5, 5]
print(len(cutout.encode(".png")), len(cutout.encode(".jpg")), cutout.mask.bits.sum())
"""

found = {
    ops: subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "FGFAST_OPS": ops},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    for ops in ("native", "reference")
}
assert found["native"] == found["reference"] != "", found
print("the wheel works:", found["native"].strip())

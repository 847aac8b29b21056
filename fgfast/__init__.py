"""fgfast: foreground-only twins of image-classification data sets, at the speed of the hardware.

>>> import fgfast
>>> report = fgfast.convert("cub", "cub_fg")  # doctest: +SKIP
>>> cutout = fgfast.cut_out("bird.jpg", box=(60, 27, 385, 331))  # doctest: +SKIP
>>> with fgfast.Cutter() as cutter:  # doctest: +SKIP
...     for n, cutout in enumerate(cutter.cut_many(["bird.jpg", "boat.jpg"])):
...         cutout.save(f"{n}.png")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fgfast.background import Background as Background
    from fgfast.config import Selection as Selection
    from fgfast.config import Settings as Settings
    from fgfast.errors import FgfastError as FgfastError
    from fgfast.io.cutout import Cutout as Cutout
    from fgfast.pipeline.cutter import Cutter as Cutter
    from fgfast.pipeline.cutter import cut_out as cut_out
    from fgfast.pipeline.finish import Report as Report
    from fgfast.pipeline.run import convert as convert

__version__ = "0.1.0"

# Public name -> module; imported on first use, so that `fgfast --help` answers at once.
_HOMES = {
    "Background": "fgfast.background",
    "Cutout": "fgfast.io.cutout",
    "Cutter": "fgfast.pipeline.cutter",
    "FgfastError": "fgfast.errors",
    "Report": "fgfast.pipeline.finish",
    "Selection": "fgfast.config",
    "Settings": "fgfast.config",
    "convert": "fgfast.pipeline.run",
    "cut_out": "fgfast.pipeline.cutter",
}
__all__ = [
    "Background",
    "Cutout",
    "Cutter",
    "FgfastError",
    "Report",
    "Selection",
    "Settings",
    "__version__",
    "convert",
    "cut_out",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fgfast' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__

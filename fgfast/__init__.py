"""fgfast: foreground-only twins of image-classification data sets, at the speed of the hardware.

>>> import fgfast
>>> report = fgfast.convert("cub", "cub_fg")  # doctest: +SKIP
>>> cutout = fgfast.cut_out("bird.jpg", box=(60, 27, 385, 331))  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fgfast.config import Background as Background
    from fgfast.config import Selection as Selection
    from fgfast.config import Settings as Settings
    from fgfast.pipeline.finish import Report as Report
    from fgfast.pipeline.run import convert as convert
    from fgfast.pipeline.single import cut_out as cut_out

__version__ = "0.1.0"
__all__ = ["Background", "Report", "Selection", "Settings", "__version__", "convert", "cut_out"]

# Public name -> module; imported on first use, so that `fgfast --help` answers at once.
_HOMES = {
    "Background": "fgfast.config",
    "Selection": "fgfast.config",
    "Settings": "fgfast.config",
    "Report": "fgfast.pipeline.finish",
    "convert": "fgfast.pipeline.run",
    "cut_out": "fgfast.pipeline.single",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fgfast' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)

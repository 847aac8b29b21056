"""Names that settings take, and values that are given in several forms."""

from __future__ import annotations

from typing import Literal, get_args

from fgfast.errors import UsageError

FormatName = Literal["same", "png", "jpeg", "webp"]
CropName = Literal["none", "box", "square"]
MaskFormat = Literal["png", "rle", "none"]
FlagsName = Literal["doubt", "rules"]
PlacementName = Literal["auto", "replicate", "split"]
DecoderName = Literal["auto", "cpu", "dali", "dali_cpu", "nvjpeg"]
DECODERS: tuple[str, ...] = get_args(DecoderName)
ON_GPU = ("dali", "nvjpeg")  # decoders that need a GPU


def as_devices(value: object) -> tuple[str, ...]:
    """Return names of devices: "cuda:0,cuda:1" and ("cuda:0", "cuda:1") are both the latter."""
    names = value.split(",") if isinstance(value, str) else value
    listed = isinstance(names, (tuple, list)) and all(isinstance(name, str) for name in names)
    devices = tuple(name.strip() for name in names) if listed else ()  # type: ignore[attr-defined]
    if not devices or not all(devices) or ("auto" in devices and len(devices) > 1):
        raise UsageError(f"devices must be auto, or names separated by commas such as cuda:0,cuda:1, not {value!r}")
    return devices


def as_share(value: object) -> str:
    """Return a share as text in per cent: "5%" and 0.05 are both "5%"."""
    text = str(value).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if isinstance(value, bool) or not 0 <= share <= 1:
        raise UsageError(f"flag-rate must be a share from 0% to 100%, such as 5% or 0.05, not {value!r}")
    return f"{100 * share:g}%"

"""Where the annotated mask of a sample is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

MaskKind = Literal["grey", "levels", "trimap", "coco"]
"""How an annotated mask is written; see fgfast.datasets.masks."""


@dataclass(frozen=True, slots=True)
class MaskSource:
    """Where the annotated mask of a sample is.

    Attributes:
        kind: how it is written.
        path: its file, or the file that lists it.
        digest: SHA-256 of the file, or of `content`.
        content: for "coco", the image's annotations as JSON; empty for the kinds that are files.
        flags: reasons to doubt it that are known already.
    """

    kind: MaskKind
    path: os.PathLike[str]
    digest: str
    content: bytes = b""
    flags: tuple[str, ...] = ()

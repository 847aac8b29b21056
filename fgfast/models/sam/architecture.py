"""The sizes of each SAM, and the constants that all of them share. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from fgfast.errors import UnknownNameError

# segment-anything, build_sam.py: the same for every checkpoint.
PATCH = 16
WINDOW = 14
CHANNELS = 256
MASK_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Architecture:
    """The sizes of one SAM.

    Attributes:
        width: channels of the image encoder's tokens.
        depth: its blocks.
        heads: its attention heads.
        global_blocks: blocks whose attention sees the whole image; the others see windows of 14x14 tokens.
        side: side of the square input, in pixels.
    """

    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    side: int = 1024

    @property
    def grid(self) -> int:
        """Side of the square of image tokens."""
        return self.side // PATCH

    @property
    def embedding_bytes(self) -> int:
        """Bytes of an image's embedding in float16."""
        return 2 * CHANNELS * self.grid**2


# segment-anything, build_sam.py; the tiny ones are for tests and have no checkpoint.
ARCHITECTURES = MappingProxyType(
    {
        "vit_b": Architecture(width=768, depth=12, heads=12, global_blocks=(2, 5, 8, 11)),
        "vit_l": Architecture(width=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)),
        "vit_h": Architecture(width=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)),
        "tiny256": Architecture(width=64, depth=4, heads=4, global_blocks=(1, 3), side=256),
        "tiny1024": Architecture(width=64, depth=4, heads=4, global_blocks=(1, 3)),
    }
)


def architecture(name: str) -> Architecture:
    """Return the architecture with this name; raises UnknownNameError for an unknown one."""
    try:
        return ARCHITECTURES[name]
    except KeyError:
        raise UnknownNameError("SAM", name, ARCHITECTURES) from None

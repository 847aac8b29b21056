"""The original SAM: the package segment-anything, as the reference of benches."""

from __future__ import annotations

import importlib
from typing import Any

from fgfast.methods import ModelSpec
from fgfast.models.sam.architecture import ARCHITECTURES
from fgfast.models.sam.build import sam_state


def package() -> Any:
    """Import segment-anything, beside any torchvision."""
    from fgfast.studies import torchvision_shim

    torchvision_shim.declare()  # the package imports torchvision
    return importlib.import_module("segment_anything")


def original(name: str, weights: str) -> Any:
    """Return the model of the package with weights, on the CPU.

    Args:
        name: of an architecture whose side is 1024, the only one that the package builds.
        weights: "cached", "random:SEED" or a file.
    """
    sizes = ARCHITECTURES[name]
    package()
    # What its registry calls for the official names; a function of the package hides this module.
    module: Any = importlib.import_module("segment_anything.build_sam")
    model = module._build_sam(
        encoder_embed_dim=sizes.width,
        encoder_depth=sizes.depth,
        encoder_num_heads=sizes.heads,
        encoder_global_attn_indexes=list(sizes.global_blocks),
    )
    model.load_state_dict(sam_state(ModelSpec(f"sam_{name}", weights)))
    return model.eval()

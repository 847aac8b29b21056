"""Small members of each family of a study's backbones; needs torch and timm."""

from __future__ import annotations

import torch

from fgfast.studies.models import Backbone, build

SWIN = {"embed_dim": 32, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "window_size": 4}
# Small members: name, image size, options of timm.
SMALL = {
    "vit": ("test_vit", 64, {}),
    "vit-mean": ("vit_tiny_patch16_224", 64, {"depth": 2, "embed_dim": 96, "num_heads": 3, "global_pool": "avg"}),
    "dinov2": ("vit_small_patch14_reg4_dinov2", 56, {"depth": 2}),
    "swin": ("swinv2_tiny_window8_256", 64, SWIN),
    "convnext": ("test_convnext", 64, {}),
    "resnet": ("test_resnet", 64, {}),
    "efficientnet": ("test_efficientnet", 64, {}),
}
TOKENS = ("vit", "dinov2")


def made(kind: str, **more: object) -> Backbone:
    name, size, options = SMALL[kind]
    torch.manual_seed(3)
    model = build(name, 5, image_size=size, **{**options, **more}).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():  # heads and layer scales that start at nearly nothing would hide mistakes
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def drawn(model: Backbone) -> tuple[torch.Tensor, torch.Tensor]:
    side = model.cfg.image_size[0]
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, side, side, generator=generator)
    mask = torch.zeros(2, 1, side, side)
    mask[0, :, : side // 2, : side // 2] = 1
    mask[1, :, side // 4 :, side // 2 :] = 1
    return x, mask

"""The layers at which Grad-CAM looks at each family of backbones, and how their output becomes a map.

After a ViT's last block the class token alone goes on, so that the gradient of its patches is exactly zero and a map
would be black (pytorch-grad-cam issues 363 and 513): there, the input of the last attention is the last layer that
counts. A layer whose gradient is zero is refused, whatever the table says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fgfast.errors import UsageError
from fgfast.studies.cell import Pooling

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fgfast.studies.models import Backbone


def target_layer(backbone: Backbone, pooling: Pooling = "native") -> tuple[str, nn.Module]:
    """Return the layer of a backbone, and its name within timm's model.

    Args:
        backbone: of `fgfast.studies.models`.
        pooling: of the strategy; whether the class token counts depends on it.
    """
    model = backbone.timm
    if backbone.family == "vit":
        of_token = pooling in ("class", "both") or (pooling == "native" and model.global_pool == "token")
        name = f"blocks.{len(model.blocks) - 1}" + (".norm1" if of_token else "")
    else:
        last = f"blocks.{len(model.blocks) - 1}" if backbone.family == "efficientnet" else ""
        name = {"swin": "norm", "resnet": "layer4", "convnext": f"stages.{len(getattr(model, 'stages', ())) - 1}"}.get(
            backbone.family, last
        )
    return name, model.get_submodule(name)


def as_map(backbone: Backbone, output: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a target layer's output, or its gradient, as a map (B, D, h, w).

    Args:
        backbone: whose layer it is.
        output: (B, prefix + N, D) of a ViT, (B, h, w, D) of Swin, (B, D, h, w) else.
        size: (H, W) of the model's input.
    """
    if backbone.family == "vit":
        grid = tuple(backbone.timm.patch_embed.dynamic_feat_size(size))
        return output[:, backbone.prefix :].transpose(1, 2).unflatten(2, grid)
    return output.permute(0, 3, 1, 2) if backbone.family == "swin" else output


def check_gradient(gradient: Tensor, layer: str) -> None:
    """Refuse a layer on which the logits do not depend.

    Args:
        gradient: of the logits in the layer's output as a map, (B, D, h, w).
        layer: its name, for the message.

    Raises:
        UsageError: the gradient is zero everywhere.
    """
    if not bool(gradient.any()):
        raise UsageError(
            f"the gradient at {layer} is zero in every cell: the classifier does not read it, a map would be black. "
            "Behind a class token, use the last block's norm1"
        )

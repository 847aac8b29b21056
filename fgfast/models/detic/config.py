"""The sizes of a Detic model, as frozen records.

Sources: configs/Detic_LI21k_CLIP_SwinB_896b32_4x_ft4x_max-size.yaml of Detic 436cda2a, and the defaults of detectron2
02b5c4e2 where the config sets no value.
"""

from __future__ import annotations

from dataclasses import dataclass

# Every Swin that Detic offers uses windows of 7x7 tokens, patches of 4x4 pixels and heads of 32 channels.
WINDOW = 7
PATCH = 4
HEAD_CHANNELS = 32
# LayerNorm and GroupNorm: PyTorch's default eps, which the reference uses.
NORM_EPS = 1e-5


@dataclass(frozen=True, slots=True)
class DeticConfig:
    """The sizes of one Detic.

    Attributes:
        name: for messages and manifests.
        channels: of the patch embedding; doubles with every stage of the backbone.
        depths: blocks of each of the four stages.
        pyramid_channels: of p3..p7 and of the proposal head.
        box_features: width of the three box heads.
        shorter_edge, longest_edge: of the resized image, pixels (MIN_SIZE_TEST, MAX_SIZE_TEST).
        level_candidates: maximum number of candidates per pyramid level (PRE_NMS_TOPK_TEST).
        proposals: boxes that enter the cascade (POST_NMS_TOPK_TEST).
        proposal_overlap: IoU above which a candidate is suppressed (NMS_TH_TEST).
        heat_threshold: cells at or below it propose nothing (INFERENCE_TH).
    """

    name: str
    channels: int
    depths: tuple[int, int, int, int]
    pyramid_channels: int = 256
    box_features: int = 1024
    shorter_edge: int = 800
    longest_edge: int = 1333
    level_candidates: int = 1000
    proposals: int = 256
    proposal_overlap: float = 0.9
    heat_threshold: float = 1e-4

    @property
    def stage_channels(self) -> tuple[int, int, int, int]:
        """Channels of the four stages of the backbone."""
        c = self.channels
        return c, 2 * c, 4 * c, 8 * c


SWIN_B = DeticConfig("swinb", channels=128, depths=(2, 2, 18, 2))
SWIN_T = DeticConfig("swint", channels=96, depths=(2, 2, 6, 2))
# Not one of Detic's: a small model for tests, the same code in a hundredth of the time.
NANO = DeticConfig("nano", channels=32, depths=(2, 2, 2, 2), pyramid_channels=64, box_features=128)

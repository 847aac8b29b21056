"""Builds the original Detic with its own code on detectron2, as the reference of tests and benches.

Neither is a dependency. docs/models.md, "The original as a reference", describes the installation.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fgfast.bench.stamp import git
from fgfast.models.detic.config import HEAD_CHANNELS, WINDOW, DeticConfig
from fgfast.models.detic.transform import Selection
from fgfast.records import UInt8

# The environment variable that holds the path of the clone of Detic, which is not a package, with its submodule
# CenterNet2.
REPOSITORY = "FGFAST_DETIC_REPO"
CONFIG = "configs/Detic_LI21k_CLIP_SwinB_896b32_4x_ft4x_max-size.yaml"
HOW = 'docs/models.md, "The original as a reference", describes the installation'
# fgfast's sizes and their names in the original's table; other sizes are added to that table.
_SIZES = {"swinb": "B-22k", "swint": "T"}
# What the original has and random weights lack: masks, the initial vocabulary, and constants.
_NOT_GIVEN = ("roi_heads.mask_head.", "cls_score.zs_weight", "attn.relative_position_index")


class Detected(NamedTuple):
    """Detections of one image, in descending order.

    Attributes:
        boxes: (N, 4) float32, in pixels of the image.
        scores: (N,) float32.
        classes: (N,) int64, rows of the vocabulary.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]


def missing() -> str | None:
    """Return why the original cannot run here, or None if it can."""
    spec = importlib.util.find_spec("detectron2")
    # A folder of that name, such as the clone itself, is a namespace package without a file.
    if spec is None or spec.origin is None:
        return "detectron2 is not installed"
    if not os.environ.get(REPOSITORY):
        return f"{REPOSITORY} does not hold the path of a clone of Detic"
    for part in (CONFIG, "third_party/CenterNet2/centernet/config.py"):
        if not (_repository() / part).is_file():
            return f"{REPOSITORY} is {_repository()}, which lacks {part} (clone with --recurse-submodules)"
    try:
        _modules()
        # Raises if torchvision lacks its compiled operators, as it does beside a torch that it was not built for.
        importlib.import_module("torchvision.ops").nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    except (ImportError, RuntimeError) as error:
        return f"the original Detic does not load: {error}".partition("\n")[0].partition(". ")[0]
    return None


def named() -> str:
    """Return the original and its versions in words."""
    detectron2, torchvision = _import("detectron2"), _import("torchvision")
    version = f"{detectron2.__version__}{_commit(Path(detectron2.__file__).parents[1])}"
    return f"Detic{_commit(_repository())}, detectron2 {version}, torchvision {torchvision.__version__}"


class Original:
    """detectron2's DefaultPredictor on Detic's config, with the demo's overrides, in float32.

    Args:
        config: the size of the model; its edges are set as well.
        state: the weights, named as those of fgfast's Detic; the mask head keeps its initial weights.
        embeddings: (C, 512) float32, the vocabulary, unnormalised.
        selection: what counts as a detection.
        device: the device that it computes on, in torch's notation.

    Raises:
        ValueError: the weights do not fit the original's model.
    """

    def __init__(
        self,
        config: DeticConfig,
        state: Mapping[str, Tensor],
        embeddings: Tensor,
        selection: Selection,
        device: str = "cpu",
    ) -> None:
        with _quietly():
            self.predictor = _import("detectron2.engine.defaults").DefaultPredictor(_config(config, selection, device))
            self.model: Any = self.predictor.model
            self.model.roi_heads.mask_on = False  # the boxes are the same without masks
            found = self.model.load_state_dict(dict(state), strict=False)
            lacking = [key for key in found.missing_keys if not any(part in key for part in _NOT_GIVEN)]
            if lacking or found.unexpected_keys:
                raise ValueError(f"the weights lack {lacking} and have unexpected {found.unexpected_keys}")
            self.set_vocabulary(embeddings)

    def set_vocabulary(self, embeddings: Tensor) -> None:
        """Replace the classes by those of (C, 512) float32 embeddings, as the demo of the original does."""
        rows = embeddings.float().T.contiguous().to(self.model.device)
        _import("detic.modeling.utils").reset_cls_test(self.model, rows, rows.shape[1])

    def set_selection(self, threshold: float, one_class: bool) -> None:
        """Replace the score threshold, and choose between one class per proposal and all."""
        self.model.roi_heads.one_class_per_proposal = one_class
        for predictor in self.model.roi_heads.box_predictor:
            predictor.test_score_thresh = threshold

    def __call__(self, pixels: UInt8) -> Detected:
        """Detect on (h, w, 3) uint8 RGB; the predictor takes blue, green, red."""
        with _quietly():
            found = self.predictor(pixels[:, :, ::-1])["instances"]
        columns = (found.pred_boxes.tensor, found.scores, found.pred_classes)
        return Detected(*(column.cpu().numpy() for column in columns))


def _config(config: DeticConfig, selection: Selection, device: str) -> Any:
    """Return the config of Detic for this size, as its demo sets it up."""
    repository, cfg = _repository(), _import("detectron2.config").get_cfg()
    _import("centernet.config").add_centernet_config(cfg)
    _import("detic.config").add_detic_config(cfg)
    cfg.merge_from_file(str(repository / CONFIG))
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = device, ""
    cfg.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_PATH = "rand"
    cfg.MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH = str(repository / cfg.MODEL.ROI_BOX_HEAD.CAT_FREQ_PATH)
    cfg.MODEL.ROI_HEADS.ONE_CLASS_PER_PROPOSAL = selection.one_class
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = selection.threshold
    cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = selection.overlap
    cfg.TEST.DETECTIONS_PER_IMAGE = selection.limit
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = config.shorter_edge, config.longest_edge
    cfg.MODEL.SWIN.SIZE = _SIZES.get(config.name, config.name)
    _modules()["detic.modeling.backbone.swintransformer"].size2config.setdefault(
        config.name,
        {
            "window_size": WINDOW,
            "embed_dim": config.channels,
            "depth": list(config.depths),
            "num_heads": [width // HEAD_CHANNELS for width in config.stage_channels],
            "drop_path_rate": 0.0,
            "pretrained": "",
        },
    )
    cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.ROI_BOX_HEAD.FC_DIM = config.pyramid_channels, config.box_features
    return cfg


def _modules() -> dict[str, Any]:
    """Import the modules of the original that are used here; importing them registers the rest."""
    for folder in (_repository(), _repository() / "third_party" / "CenterNet2"):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    names = ("centernet.config", "detic.config", "detic.modeling.utils", "detic.modeling.backbone.swintransformer")
    return {name: _import(name) for name in ("detectron2.engine.defaults", *names)}


def _import(name: str) -> Any:
    with _quietly():
        return importlib.import_module(name)


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the deprecation warnings of the original while the block runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _repository() -> Path:
    return Path(os.environ[REPOSITORY]).expanduser().resolve()


def _commit(folder: Path) -> str:
    """Return the commit of a clone as " (1234567)"; "" for any other folder."""
    found = git(folder, "rev-parse", "--short=7", "HEAD") if (folder / ".git").exists() else None
    return f" ({found})" if found else ""

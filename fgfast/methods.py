"""Detectors and segmenters by name: which are chosen and why, and how they are made ready to run."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fgfast.config import MODEL_DETECTORS, SAM_SEGMENTERS, Settings
from fgfast.datasets.layout import Dataset
from fgfast.errors import UsageError
from fgfast.models import weights
from fgfast.models.build import seed_of
from fgfast.records import Bool, Detections, Float32, Image, Mask, Sample, UInt8
from fgfast.stages import Annotations, Center, Detector, Segmenter, box_mask

if TYPE_CHECKING:
    from fgfast.models.grabcut import GrabCut


def choose(dataset: Dataset, settings: Settings, measure: bool = True) -> tuple[Settings, list[str]]:
    """Replace every "auto" by what will be used, and say why in a sentence each.

    Args:
        dataset: what is to be converted.
        settings: as given.
        measure: time backends where nobody knows yet which one is faster.
    """
    reasons: list[str] = []
    torch = importlib.util.find_spec("torch") is not None
    made_up = seed_of(settings.model_weights) is not None
    if settings.detector == "auto":
        settings = _choose_detector(dataset, settings, torch, reasons)
    elif settings.detector == "annotations" and not any(len(s.boxes) for s in dataset.samples):
        raise UsageError(f"the data set {dataset.name} brings no boxes: use --detector center")
    else:
        reasons.append(f"detector {settings.detector}: as asked")
    settings = _choose_segmenter(settings, torch, reasons)
    if made_up and (settings.segmenter in SAM_SEGMENTERS or settings.detector in MODEL_DETECTORS):
        reasons.append(f"weights {settings.model_weights}: made up, for trying out; masks and boxes mean nothing")
    if settings.detector in MODEL_DETECTORS or settings.segmenter in SAM_SEGMENTERS:
        settings = _choose_device(settings, reasons, measure)
    return settings, reasons


def _choose_detector(dataset: Dataset, settings: Settings, torch: bool, reasons: list[str]) -> Settings:
    boxes = sum(len(s.boxes) > 0 for s in dataset.samples)
    if torch and dataset.subject and weights.find("detic") and weights.find("lvis"):
        reasons.append("detector detic: its weights are here")
        return replace(settings, detector="detic")
    found = f"the data set brings boxes for {boxes:,} of {len(dataset.samples):,} pictures"
    if boxes:
        reasons.append(f"detector annotations: {found}")
        return replace(settings, detector="annotations")
    reasons.append("detector center: the data set brings no boxes")
    return replace(settings, detector="center")


def _choose_segmenter(settings: Settings, torch: bool, reasons: list[str]) -> Settings:
    if settings.segmenter == "sam":
        settings = replace(settings, segmenter="sam_vit_l")
    if settings.segmenter != "auto":
        reasons.append(f"segmenter {settings.segmenter}: as asked")
        return settings
    if torch and weights.find("sam_vit_l") is not None:
        reasons.append("segmenter sam_vit_l: its weights are here")
        return replace(settings, segmenter="sam_vit_l")
    reasons.append("segmenter grabcut: SAM's weights are not here; `fgfast models pull sam_vit_l` brings them")
    return replace(settings, segmenter="grabcut")


def choose_segmenter(settings: Settings) -> Settings:
    """The same settings with segmenter, device and precision chosen, for a single picture whose box is known."""
    settings = _choose_segmenter(settings, importlib.util.find_spec("torch") is not None, [])
    return _choose_device(settings, []) if settings.segmenter in SAM_SEGMENTERS else settings


def _choose_device(settings: Settings, reasons: list[str], measure: bool = True) -> Settings:
    from fgfast.models.devices import choose_device, choose_precision

    device = choose_device(settings.device)
    precision, why = choose_precision(settings.precision, device)
    reasons.append(f"device {device}, precision {precision}: {why}")
    settings = replace(settings, device=device, precision=precision)
    from fgfast.models.backend import choose_backend

    used = [n for n in (settings.detector, settings.segmenter) if n in MODEL_DETECTORS or n in SAM_SEGMENTERS]
    backend, why = choose_backend(settings.backend, used, settings.model_weights, precision, device, measure)
    reasons.append(f"backend {backend}: {why}")
    return replace(settings, backend=backend)


def detector(settings: Settings, dataset: Dataset) -> Detector:
    """The detector that the settings name, ready to run.

    Raises:
        ModelNotCachedError: its weights are not on this machine.
        MissingExtraError: a package is not installed.
        UsageError: nobody said what the pictures show.
    """
    if settings.detector == "annotations":
        return Annotations()
    if settings.detector == "center":
        return Center()
    words = settings.vocabulary or ",".join(dataset.subject)
    if not words:
        raise UsageError('say what the pictures show: --vocabulary "bird,car", lvis, or a file with a name a line')
    if settings.detector == "detic":
        return _OneAtATime("detic", _detic(settings, words))
    from fgfast.models import grounding_dino
    from fgfast.models.vocabulary import read_names

    dino = grounding_dino.build(
        settings.detector,
        read_names(words),
        settings.model_weights,
        device=settings.device,
        precision=settings.exact_precision,
        backend=settings.exact_backend,
    )
    return _OneAtATime(settings.detector, lambda image: dino([image])[0])


def _detic(settings: Settings, words: str) -> Callable[[Image], Detections]:
    from fgfast.models import sessions
    from fgfast.models.detic.config import SWIN_B
    from fgfast.models.detic.detector import DeticDetector
    from fgfast.models.vocabulary import load_vocabulary

    names, embeddings = load_vocabulary(words, settings.model_weights)
    canvases = sessions.detic(settings.model_weights, settings.exact_precision, settings.device, settings.exact_backend)
    found = DeticDetector(canvases, SWIN_B, names, embeddings)
    return lambda image: found([image])[0].detections


@dataclass(slots=True)
class _OneAtATime:
    """A model's detector for one picture at a time: the model itself uses all cores, or the one GPU."""

    name: str
    find: Callable[[Image], Detections]
    lock: threading.Lock

    def __init__(self, name: str, find: Callable[[Image], Detections]) -> None:
        self.name, self.find, self.lock = name, find, threading.Lock()

    def detect(self, sample: Sample, image: Image) -> Detections:
        with self.lock:
            return self.find(image)


def right_words(settings: Settings, dataset: Dataset) -> frozenset[str]:
    """The names that count as the subject, as `plain` writes them; empty where every name does.

    The data set says what its pictures show; a vocabulary of one's own says it instead, unless it is all of LVIS.
    """
    from fgfast.models.vocabulary import plain, read_names

    if settings.detector not in MODEL_DETECTORS:
        return frozenset()
    if settings.vocabulary and settings.vocabulary != "lvis":
        return frozenset(plain(name) for name in read_names(settings.vocabulary))
    return frozenset(plain(word) for word in dataset.subject)


def segmenter(settings: Settings) -> Segmenter:
    """The segmenter that the settings name, ready to run; errors as for `detector`."""
    if settings.segmenter == "box":
        return lambda pixels, box, banner: Mask(box_mask(pixels, box, banner))
    if settings.segmenter in SAM_SEGMENTERS:
        return _sam(settings)
    from fgfast.models.grabcut import GrabCut

    return _grabcut(GrabCut())


def _grabcut(cut: GrabCut) -> Segmenter:
    return lambda pixels, box, banner: Mask(cut.segment(pixels, box, banner))


def _sam(settings: Settings) -> Segmenter:
    from fgfast.models import sessions

    sam = sessions.sam(
        settings.segmenter,
        settings.model_weights,
        settings.exact_precision,
        settings.device,
        settings.exact_backend,
    )
    lock = threading.Lock()

    def segment(pixels: UInt8, box: Float32, banner_rows: int) -> Mask:
        with lock:
            found = sam.segment([pixels], [box[None]])[0]
        bits: Bool = found.bits[0, 0].copy()
        if banner_rows:
            bits[max(0, len(bits) - banner_rows) :] = False
        return Mask(bits, float(found.quality[0, 0]))

    return segment


def weights_used(settings: Settings) -> dict[str, str]:
    """Model -> what its weights are, for run.json and for the comparison before a run is resumed."""
    from fgfast.models.graph_files import identity

    used = (settings.detector, settings.segmenter)
    return {n: identity(n, settings.model_weights) for n in used if n in MODEL_DETECTORS or n in SAM_SEGMENTERS}

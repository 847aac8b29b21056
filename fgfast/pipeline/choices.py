"""Detectors and segmenters by name: which are chosen and why, and how they are made ready to run."""

from __future__ import annotations

import importlib.util
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from fgfast.config import MODEL_DETECTORS, SAM_SEGMENTERS, Settings
from fgfast.datasets.layout import Dataset
from fgfast.errors import UsageError
from fgfast.io.decoders import ON_GPU, available, decoder
from fgfast.machine import available_cores
from fgfast.models.files import weights
from fgfast.models.files.checkpoints import seed_of
from fgfast.pipeline.batched_stages import BatchDetector
from fgfast.pipeline.stages import Annotations, Center, Detector, Segmenter, box_mask
from fgfast.records import Bool, Float32, Mask, UInt8

if TYPE_CHECKING:
    from fgfast.models.grabcut import GrabCut
    from fgfast.models.sam.segmenter import SamSegmenter


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
        settings = _choose_devices(settings, reasons, measure)
    else:
        settings = _only_cpus(settings, reasons)
    return _choose_decoder(settings, reasons), reasons


def _only_cpus(settings: Settings, reasons: list[str]) -> Settings:
    """Where no model runs there is nothing for a GPU to do but decoding."""
    for device in settings.places:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise UsageError(f"there is no device {device!r}; devices are called cpu, cuda:0, cuda:1, ...")
    if settings.decoder in ON_GPU:
        return settings if settings.places != ("auto",) else replace(settings, devices=("cuda:0",))
    if any(device.startswith("cuda") for device in settings.places):
        reasons.append("devices: no model runs, so there is nothing for a GPU to do")
    return replace(settings, devices=("cpu",) * len(settings.places), threads=None, batch=None)


def _choose_decoder(settings: Settings, reasons: list[str]) -> Settings:
    """Where no GPU takes part, the CPU's own decoder is the fastest, and the reference of all others. On a GPU it is
    chosen by measuring, when a run begins.
    """
    if settings.decoder != "auto":
        for device in dict.fromkeys(settings.places):
            if settings.decoder not in available(device):
                decoder(settings.decoder, device)  # raises what there is to say
        reasons.append(f"decoder {settings.decoder}: as asked")
        return settings
    if any(available(device)[0] in ON_GPU for device in settings.places):
        reasons.append("decoder auto: measured and compared when the run begins")
        return settings
    return replace(settings, decoder="cpu")


def _choose_detector(dataset: Dataset, settings: Settings, torch: bool, reasons: list[str]) -> Settings:
    boxes = sum(len(s.boxes) > 0 for s in dataset.samples)
    if torch and dataset.subject and weights.find("detic") and weights.find("lvis"):
        reasons.append("detector detic: its weights are here")
        return replace(settings, detector="detic")
    found = f"the data set brings boxes for {boxes:,} of {len(dataset.samples):,} images"
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
    """The same settings with segmenter, device and precision chosen, for a single image whose box is known."""
    settings = _choose_segmenter(settings, importlib.util.find_spec("torch") is not None, [])
    return _choose_devices(settings, []) if settings.segmenter in SAM_SEGMENTERS else settings


def _choose_devices(settings: Settings, reasons: list[str], measure: bool = True) -> Settings:
    from fgfast.models.serving.backend import choose_backend
    from fgfast.models.serving.devices import choose_devices, choose_precision

    devices = choose_devices(settings.places)
    precision, why = choose_precision(settings.precision, devices)
    reasons.append(f"devices {','.join(devices)}, precision {precision}: {why}")
    settings = replace(settings, devices=devices, precision=precision)
    used = [n for n in (settings.detector, settings.segmenter) if n in MODEL_DETECTORS or n in SAM_SEGMENTERS]
    found = [
        choose_backend(settings.backend, used, settings.model_weights, precision, device, measure, settings.batch)
        for device in dict.fromkeys(devices)
    ]
    backend, why = found[0]
    if any(other != backend for other, _ in found):
        backend, why = "torch", "the one that all devices have"
    reasons.append(f"backend {backend}: {why}")
    threads = (settings.threads or available_cores()) if "cpu" in devices else None
    return replace(settings, backend=backend, threads=threads)


def both_are_models(settings: Settings) -> bool:
    """Whether there are a detector and a segmenter to place on devices."""
    return settings.detector in MODEL_DETECTORS and settings.segmenter in SAM_SEGMENTERS


def simple_detector(settings: Settings) -> Detector:
    """A detector that is no model."""
    return Annotations() if settings.detector == "annotations" else Center()


def detector_model(settings: Settings, subject: Sequence[str], device: str) -> BatchDetector:
    """The model that the settings name as detector, ready to run on a device.

    Args:
        settings: with every "auto" replaced.
        subject: what the images show, where no vocabulary says it.
        device: as torch names it.

    Raises:
        ModelNotCachedError: its weights are not on this machine.
        MissingExtraError: a package is not installed.
        UsageError: nobody said what the images show.
    """
    words = settings.vocabulary or ",".join(subject)
    if not words:
        raise UsageError('say what the images show: --vocabulary "bird,car", lvis, or a file with a name a line')
    weights, precision, backend = settings.model_weights, settings.exact_precision, settings.exact_backend
    if settings.detector == "detic":
        from fgfast.models.detic.config import SWIN_B
        from fgfast.models.detic.detector import DeticDetector
        from fgfast.models.serving import exported as sessions
        from fgfast.models.vocabulary import load_vocabulary

        names, embeddings = load_vocabulary(words, weights)
        canvases = sessions.detic(weights, precision, device, backend, settings.batch)
        return DeticDetector(canvases, SWIN_B, names, embeddings)
    from fgfast.models import grounding_dino
    from fgfast.models.vocabulary import read_names

    return grounding_dino.build(
        settings.detector,
        read_names(words),
        weights,
        device=device,
        precision=precision,
        backend=backend,
        batch=settings.batch,
    )


def right_words(settings: Settings, subject: Sequence[str]) -> frozenset[str]:
    """The names that count as the subject, as `plain` writes them; empty where every name does.

    The data set says what its images show; a vocabulary of one's own says it instead, unless it is all of LVIS.
    """
    from fgfast.models.vocabulary import plain, read_names

    if settings.detector not in MODEL_DETECTORS:
        return frozenset()
    if settings.vocabulary and settings.vocabulary != "lvis":
        return frozenset(plain(name) for name in read_names(settings.vocabulary))
    return frozenset(plain(word) for word in subject)


def segmenter(settings: Settings) -> Segmenter:
    """The segmenter that the settings name, for one image at a time; errors as for `detector_model`."""
    if settings.segmenter == "box":
        return lambda pixels, box, banner: Mask(box_mask(pixels, box, banner))
    if settings.segmenter in SAM_SEGMENTERS:
        return _sam(settings)
    from fgfast.models.grabcut import GrabCut

    return _grabcut(GrabCut())


def _grabcut(cut: GrabCut) -> Segmenter:
    return lambda pixels, box, banner: Mask(cut.segment(pixels, box, banner))


def sam_model(settings: Settings, device: str) -> SamSegmenter:
    """SAM as the settings name it, ready to run on a device; errors as for `detector_model`."""
    from fgfast.models.serving import exported as sessions

    return sessions.sam(
        settings.segmenter,
        settings.model_weights,
        settings.exact_precision,
        device,
        settings.exact_backend,
        settings.batch,
    )


def _sam(settings: Settings) -> Segmenter:
    sam = sam_model(replace(settings, batch=1), settings.places[0])
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
    from fgfast.models.files.graph_files import identity

    used = (settings.detector, settings.segmenter)
    return {n: identity(n, settings.model_weights) for n in used if n in MODEL_DETECTORS or n in SAM_SEGMENTERS}

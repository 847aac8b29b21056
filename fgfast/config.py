"""Frozen settings: what to make, with which methods. What a run was made with is compared before it is resumed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from fgfast.errors import UnknownNameError, UsageError

DetectorName = Literal["auto", "annotations", "center", "detic", "grounding_dino_tiny", "grounding_dino_base"]
SegmenterName = Literal["auto", "grabcut", "box", "sam", "sam_vit_b", "sam_vit_l", "sam_vit_h"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
BackendName = Literal["auto", "torch", "onnxruntime", "tensorrt"]
FormatName = Literal["same", "png", "jpeg", "webp"]
CropName = Literal["none", "box", "square"]
MaskFormat = Literal["png", "rle", "none"]
BackgroundKind = Literal["colour", "transparent", "blur", "image"]
PlacementName = Literal["auto", "replicate", "split"]
DecoderName = Literal["auto", "cpu", "dali", "dali_cpu", "nvjpeg"]

DETECTORS: tuple[str, ...] = get_args(DetectorName)
SEGMENTERS: tuple[str, ...] = get_args(SegmenterName)
PRECISIONS: tuple[str, ...] = get_args(PrecisionName)
BACKENDS: tuple[str, ...] = get_args(BackendName)
# Those that need weights and torch.
MODEL_DETECTORS = ("detic", "grounding_dino_tiny", "grounding_dino_base")
SAM_SEGMENTERS = ("sam_vit_b", "sam_vit_l", "sam_vit_h")
FORMATS: tuple[str, ...] = get_args(FormatName)
CROPS: tuple[str, ...] = get_args(CropName)
MASK_FORMATS: tuple[str, ...] = get_args(MaskFormat)
PLACEMENTS: tuple[str, ...] = get_args(PlacementName)
DECODERS: tuple[str, ...] = get_args(DecoderName)

# ImageNet's channel means (0.485, 0.456, 0.406; torchvision's and timm's preprocessing) in 8 bits: after the usual
# normalisation such a background is zero.
IMAGENET_MEAN = (124, 116, 104)

_NAMED_COLOURS = {"black": (0, 0, 0), "white": (255, 255, 255), "mean": IMAGENET_MEAN}


@dataclass(frozen=True, slots=True)
class Background:
    """What takes the background's place.

    Attributes:
        kind: "colour", "transparent", "blur" (the image itself, blurred) or "image" (another image, scaled to
            cover).
        colour: R, G, B in 0..255; used by "colour".
        path: file of the other image; used by "image".
        digest: SHA-256 of that file, so that a resumed run notices that it changed.
    """

    kind: BackgroundKind = "colour"
    colour: tuple[int, int, int] = (0, 0, 0)
    path: Path | None = None
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Background:
        """Read `black|white|mean|R,G,B|transparent|blur|IMAGE`.

        Raises:
            UsageError: it is none of these.
        """
        if text in _NAMED_COLOURS:
            return cls(colour=_NAMED_COLOURS[text])
        if text == "transparent":
            return cls("transparent")
        if text == "blur":
            return cls("blur")
        if "," in text and not Path(text).exists():
            return cls(colour=_parse_colour(text))
        path = Path(text).expanduser()
        if not path.is_file():
            raise UsageError(
                f"background {text!r} is neither a name (black, white, mean, transparent, blur) nor a colour as R,G,B "
                f"nor an image: there is no file {path.absolute()}"
            )
        return cls("image", path=path.absolute(), digest=hashlib.sha256(path.read_bytes()).hexdigest())

    def describe(self) -> str:
        """The background in one word, or its colour as R,G,B, as it stands in run.json."""
        if self.kind == "colour":
            names = {colour: name for name, colour in _NAMED_COLOURS.items()}
            return names.get(self.colour, ",".join(map(str, self.colour)))
        if self.kind == "image" and self.path:
            return f"{self.path.name} (sha256 {self.digest[:16]})"
        return self.kind


def _as_background(value: object) -> Background:
    if isinstance(value, Background):
        return value
    if isinstance(value, tuple) and len(value) == 3:
        return Background(colour=_parse_colour(",".join(map(str, value))))
    if isinstance(value, (str, Path)):
        return Background.parse(str(value))
    raise UsageError(f"background must be a name, a colour (R, G, B), a path or a Background, not {value!r}")


def _as_devices(value: object) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, (tuple, list)) or not all(isinstance(name, str) and name.strip() for name in names):
        raise UsageError(f"devices must be names between commas, as cuda:0,cuda:1 or cpu, not {value!r}")
    devices = tuple(name.strip() for name in names)
    if not devices or ("auto" in devices and len(devices) > 1):
        raise UsageError(f"devices must be auto or names of devices, not {value!r}")
    return devices


def _parse_colour(text: str) -> tuple[int, int, int]:
    try:
        red, green, blue = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"background colour {text!r} must be three numbers R,G,B, for example 124,116,104") from None
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise UsageError(f"background colour {text!r} must have values from 0 to 255")
    return red, green, blue


@dataclass(frozen=True, slots=True)
class Selection:
    """Which samples of the data set are converted; empty means all.

    Attributes:
        splits: names of splits.
        classes: class names.
        limit: at most so many samples, taken evenly over the data set's order; None means no limit.
    """

    splits: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("splits", "classes"):
            if isinstance(value := getattr(self, name), str):  # one name, not its letters
                object.__setattr__(self, name, (value,))
        if self.limit is not None and (not isinstance(self.limit, int) or self.limit < 1):
            raise UsageError(f"limit must be a whole number of at least 1, not {self.limit!r}")


@dataclass(frozen=True, slots=True)
class Settings:
    """How images are cut out and written.

    Attributes:
        detector: where boxes come from: "annotations" (the data set's own), "center" (the middle of the image),
            "detic", "grounding_dino_tiny", "grounding_dino_base", or "auto" (Detic where its weights are on this
            machine, else annotations where the data set brings any, else center).
        segmenter: "sam_vit_b", "sam_vit_l" (also called "sam"), "sam_vit_h", "grabcut", "box" (the whole box is the
            subject), or "auto" (SAM ViT-L where its weights are on this machine, else grabcut).
        vocabulary: what a model's detector looks for: words between commas, a file with a name a line, or "lvis";
            None takes what the data set says that it shows.
        model_weights: "cached" (the official ones), "random:SEED" (made up, for trying out), or a checkpoint's path.
        precision: of the models' matrix products: "fp32", "bf16", "fp16", or "auto" (bf16 where computed natively).
        devices: "auto" (every GPU, else the CPU), or names, as text between commas or one by one: "cpu", "cuda:0", ...
            Each gets a worker process; a device may be named more than once.
        placement: of a detector and a segmenter that are both models, on several devices: "replicate" (each device
            does all), "split" (some detect, the others segment), or "auto" (whichever the measured times say).
        batch: most images per batch of a model; None takes what suits each device. Less than is asked for is taken
            where the memory does not suffice.
        threads: that a model on a CPU computes with; None takes one for each core. Results depend on it in their last
            digits, so it is part of what a run is resumed with.
        decoder: of image files: "cpu", "dali_cpu", "dali" and "nvjpeg" (on a GPU), or "auto" (the fastest whose
            pixels give the same masks on a sample of the data set).
        backend: what computes the models: "torch", "onnxruntime" or "tensorrt" (graphs made by `fgfast export`), or
            "auto" (the fastest of those that are installed, exported and checked on this machine).
        background: what takes the background's place; text is read as `Background.parse` does, a path is per image,
            three numbers are a colour.
        format: "same" (as each image's own name says), "png", "jpeg" or "webp".
        keep_names: keep every file name although the format changed; readers go by content, loaders by name.
        quality: JPEG and lossy WebP quality, 1..100. WebP at 100 is lossless.
        crop: "none", "box" (to the prompt box) or "square" (a square around it).
        pad: margin around the box when cropping, as a fraction of its longer side.
        masks: how masks are kept: "png", "rle" (one Parquet file) or "none".
    """

    detector: DetectorName = "auto"
    segmenter: SegmenterName = "auto"
    vocabulary: str | None = None
    model_weights: str = "cached"
    precision: PrecisionName = "auto"
    devices: str | tuple[str, ...] = "auto"
    placement: PlacementName = "auto"
    batch: int | None = None
    threads: int | None = None
    decoder: DecoderName = "auto"
    backend: BackendName = "auto"
    background: Background | str | Path | tuple[int, int, int] = Background()
    format: FormatName = "same"
    keep_names: bool = False
    quality: int = 95
    crop: CropName = "none"
    pad: float = 0.0
    masks: MaskFormat = "png"

    def __post_init__(self) -> None:
        object.__setattr__(self, "background", _as_background(self.background))
        object.__setattr__(self, "devices", _as_devices(self.devices))
        for kind, value, allowed in (
            ("detector", self.detector, DETECTORS),
            ("segmenter", self.segmenter, SEGMENTERS),
            ("precision", self.precision, PRECISIONS),
            ("backend", self.backend, BACKENDS),
            ("format", self.format, FORMATS),
            ("crop", self.crop, CROPS),
            ("mask format", self.masks, MASK_FORMATS),
            ("placement", self.placement, PLACEMENTS),
            ("decoder", self.decoder, DECODERS),
        ):
            if value not in allowed:
                raise UnknownNameError(kind, value, allowed)
        for name, number in (("batch", self.batch), ("threads", self.threads)):
            if number is not None and (not isinstance(number, int) or number < 1):
                raise UsageError(f"{name} must be a whole number of at least 1, not {number!r}")
        if not isinstance(self.quality, int) or not 1 <= self.quality <= 100:
            raise UsageError(f"quality must be a whole number from 1 to 100, not {self.quality!r}")
        if not isinstance(self.pad, (int, float)) or not 0 <= self.pad <= 10:
            raise UsageError(f"pad must be from 0 to 10 times the box's longer side, not {self.pad!r}")
        if self.pad and self.crop == "none":
            raise UsageError(f"pad {self.pad} has no effect without crop: add --crop box or --crop square")
        if self.keep_names and self.format == "same":
            raise UsageError("keep-names has no effect with format 'same': names do not change then")

    @property
    def exact_precision(self) -> Literal["fp32", "bf16", "fp16"]:
        """The precision, once "auto" was replaced."""
        assert self.precision != "auto"
        return self.precision

    @property
    def exact_backend(self) -> Literal["torch", "onnxruntime", "tensorrt"]:
        """The backend, once "auto" was replaced."""
        assert self.backend != "auto"
        return self.backend

    @property
    def fill(self) -> Background:
        """The background, read."""
        assert isinstance(self.background, Background)
        return self.background

    @property
    def places(self) -> tuple[str, ...]:
        """The devices, read."""
        assert isinstance(self.devices, tuple)
        return self.devices

    def describe(self) -> dict[str, Any]:
        """What changes the result, as plain values, for run.json and for the comparison before a run is resumed.

        Of devices only their kind does: a run may go on with more of them, or fewer. Batches change last digits; on a
        GPU they depend on its memory anyway, so that only those of a CPU are compared.
        """
        without = ("devices", "placement", "batch")
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in without}
        plain["device"] = "+".join(sorted({device.partition(":")[0] for device in self.places}))
        plain["batch"] = self.batch if plain["device"] == "cpu" else None
        plain["background"] = self.fill.describe()
        return plain


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line "name: old -> new" for each setting that differs."""
    names = sorted(old.keys() | new.keys())
    return [f"{n}: {old.get(n)!r} -> {new.get(n)!r}" for n in names if old.get(n) != new.get(n)]

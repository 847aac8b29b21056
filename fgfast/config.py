"""Frozen settings: what to make, and with which methods. A run is only resumed with the settings that it began with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

from fgfast import methods
from fgfast.errors import UnknownNameError, UsageError
from fgfast.methods import BackendName, ModelSpec, Precision

FormatName = Literal["same", "png", "jpeg", "webp"]
CropName = Literal["none", "box", "square"]
MaskFormat = Literal["png", "rle", "none"]
BackgroundKind = Literal["colour", "transparent", "blur", "image"]
PlacementName = Literal["auto", "replicate", "split"]
DecoderName = Literal["auto", "cpu", "dali", "dali_cpu", "nvjpeg"]
DECODERS: tuple[str, ...] = get_args(DecoderName)
# ImageNet's channel means (0.485, 0.456, 0.406 in torchvision and timm) in 8 bits, which normalisation maps to zero.
IMAGENET_MEAN = (124, 116, 104)
_NAMED_COLOURS = {"black": (0, 0, 0), "white": (255, 255, 255), "mean": IMAGENET_MEAN}


@dataclass(frozen=True, slots=True)
class Background:
    """What replaces the background.

    Attributes:
        kind: "colour", "transparent", "blur" (the image itself, blurred) or "image" (another image, scaled to cover).
        colour: R, G, B in 0..255; used by "colour".
        path: file of the other image; used by "image".
        digest: SHA-256 of that file, by which a resumed run detects that it changed.
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
        if text in ("transparent", "blur"):
            return cls(cast(BackgroundKind, text))
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
        """The background in one word, or its colour as R,G,B, as stored in run.json."""
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
    listed = isinstance(names, (tuple, list)) and all(isinstance(name, str) for name in names)
    devices = tuple(name.strip() for name in names) if listed else ()  # type: ignore[attr-defined]
    if not devices or not all(devices) or ("auto" in devices and len(devices) > 1):
        raise UsageError(f"devices must be auto, or names separated by commas such as cuda:0,cuda:1, not {value!r}")
    return devices


def _parse_colour(text: str) -> tuple[int, int, int]:
    values = tuple(int(part) if part.strip().isdecimal() else -1 for part in text.split(","))
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise UsageError(f"background colour {text!r} must be R,G,B with values from 0 to 255, for example 124,116,104")
    return values


@dataclass(frozen=True, slots=True)
class Selection:
    """Which samples of the data set are converted; empty means all.

    Attributes:
        splits: names of splits.
        classes: class names.
        limit: at most this many samples, spread evenly over the data set; None means no limit.
        exclude: files that list samples to leave out: keys, one per line, or the flagged.csv or failed.csv of a run.
    """

    splits: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    limit: int | None = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("splits", "classes", "exclude"):
            value = getattr(self, name)  # one name, not its characters
            object.__setattr__(self, name, (str(value),) if isinstance(value, (str, Path)) else tuple(map(str, value)))
        if self.limit is not None and (not isinstance(self.limit, int) or self.limit < 1):
            raise UsageError(f"limit must be a whole number of at least 1, not {self.limit!r}")


@dataclass(frozen=True, slots=True)
class Setting:
    """The description of one setting, for its check, the command line and the docs.

    Attributes:
        help: a sentence that says what the setting does.
        choices: returns the allowed values, where they are names.
        least, most: bounds of a number.
        unset: the default in words, where it is None.
        result: whether results depend on it, so that a run is only resumed with the same value.
    """

    help: str
    choices: Callable[[], Sequence[str]] | None = None
    least: float | None = None
    most: float | None = None
    unset: str = ""
    result: bool = True

    def check(self, name: str, value: object, whole: bool) -> None:
        """Raise UsageError unless the value of the setting `name` is allowed; `whole` allows whole numbers only."""
        if self.choices is not None and value not in self.choices():
            raise UnknownNameError(name, str(value), self.choices())
        if self.least is None or value is None:
            return
        fits = isinstance(value, int) if whole else isinstance(value, (int, float))
        most = math.inf if self.most is None else self.most
        if not fits or not self.least <= value <= most:  # type: ignore[operator]
            bounds = f"of at least {self.least:g}" if self.most is None else f"from {self.least:g} to {self.most:g}"
            raise UsageError(f"{name} must be a {'whole ' if whole else ''}number {bounds}, not {value!r}")


WHOLE = ("int", "int | None")  # annotations of settings that are whole numbers


def _set(default: Any, help: str, **more: Any) -> Any:
    return field(default=default, metadata={"setting": Setting(help, **more)})


@dataclass(frozen=True, slots=True)
class Settings:
    """How images are cut out and written."""

    detector: str = _set(
        "auto",
        "Selects what finds the subject's box. auto takes Detic if its weights are cached, otherwise the data set's "
        "boxes, or the centre of the image if there are none.",
        choices=partial(methods.names, "detector"),
    )
    segmenter: str = _set(
        "auto",
        "Selects what turns the box into a mask. auto takes SAM ViT-L if its weights are cached, otherwise GrabCut.",
        choices=partial(methods.names, "segmenter"),
    )
    vocabulary: str | None = _set(
        None,
        "Names what a detector looks for: words separated by commas, a file with one name per line, or lvis.",
        unset="the subject of the data set",
    )
    model_weights: str = _set(
        "cached",
        "Loads weights from the cache (cached) or a file, or draws them at random (random:SEED), for testing.",
    )
    precision: str = _set(
        "auto",
        "Sets the precision of the models' matrix products. auto takes bf16 if the device supports it natively.",
        choices=lambda: ("auto", *methods.PRECISIONS),
    )
    devices: str | tuple[str, ...] = _set(
        "auto",
        "Runs one worker process per device: cpu, cuda:0, or several between commas. auto takes all GPUs, or the CPU.",
        result=False,
    )
    placement: PlacementName = _set(
        "auto",
        "Runs both models on every device (replicate), or each on its own (split). auto measures and takes the faster.",
        choices=lambda: get_args(PlacementName),
        result=False,
    )
    batch: int | None = _set(
        None,
        "Limits the images per batch of a model; batches become smaller if memory runs short.",
        least=1,
        unset="depends on the device",
        result=False,
    )
    model_threads: int | None = _set(
        None,
        "Sets the number of threads of a model on a CPU. It affects the last digits of results.",
        least=1,
        unset="one per core",
    )
    decoder: DecoderName = _set(
        "auto",
        "Selects what decodes images. auto takes the fastest one whose pixels are right on a sample of the data set.",
        choices=lambda: DECODERS,
    )
    backend: str = _set(
        "auto",
        "Selects what runs the models; onnxruntime and tensorrt need fgfast export. auto takes the fastest usable.",
        choices=lambda: ("auto", *methods.BACKENDS),
    )
    background: Background | str | Path | tuple[int, int, int] = _set(
        Background(),
        "Replaces the background by black, white, mean (ImageNet's), R,G,B, transparent, blur, or an image file.",
    )
    format: FormatName = _set(
        "same",
        "Writes images in this format; same keeps the format of each file's name.",
        choices=lambda: get_args(FormatName),
    )
    keep_names: bool = _set(False, "Keeps every file name even if the format changes.")
    quality: int = _set(95, "Sets the JPEG and WebP quality; WebP at 100 is lossless.", least=1, most=100)
    crop: CropName = _set(
        "none", "Crops images to the box, or to a square around it.", choices=lambda: get_args(CropName)
    )
    pad: float = _set(0.0, "Adds a margin to the crop, as a fraction of the box's longer side.", least=0, most=10)
    masks: MaskFormat = _set(
        "png",
        "Stores masks as PNG files (png), as run lengths in one Parquet file (rle), or not at all (none).",
        choices=lambda: get_args(MaskFormat),
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "background", _as_background(self.background))
        object.__setattr__(self, "devices", _as_devices(self.devices))
        for f in fields(self):
            f.metadata["setting"].check(f.name.replace("_", "-"), getattr(self, f.name), f.type in WHOLE)
        if self.pad and self.crop == "none":
            raise UsageError(f"pad {self.pad} has no effect without crop: add --crop box or --crop square")
        if self.keep_names and self.format == "same":
            raise UsageError("keep-names has no effect with format 'same': names do not change then")

    def spec(self, name: str, device: str) -> ModelSpec:
        """A model of these settings on a device; precision and backend must not be "auto"."""
        assert self.precision != "auto" and self.backend != "auto"
        precision, backend = cast(Precision, self.precision), cast(BackendName, self.backend)
        return ModelSpec(name, self.model_weights, precision, device, backend, self.batch)

    @property
    def models(self) -> tuple[methods.Method, ...]:
        """The detector and the segmenter, where they are models."""
        return tuple(m for m in map(methods.find, (self.detector, self.segmenter)) if m is not None and m.is_model)

    @property
    def fill(self) -> Background:
        """The background, parsed."""
        return cast(Background, self.background)

    @property
    def places(self) -> tuple[str, ...]:
        """The names of the devices, parsed."""
        return cast("tuple[str, ...]", self.devices)

    def describe(self) -> dict[str, Any]:
        """The settings that results depend on, as plain values, for run.json and the comparison before a resume.

        Of devices only the kind counts: a run may be resumed with more or fewer. Batches change last digits; on a GPU
        they depend on its memory anyway, so only a CPU's batch counts.
        """
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata["setting"].result}
        plain["device"] = "+".join(sorted({device.partition(":")[0] for device in self.places}))
        plain["batch"] = self.batch if plain["device"] == "cpu" else None
        plain["background"] = self.fill.describe()
        return plain


Settings.__doc__ = f"{Settings.__doc__}\n\n    Attributes:\n" + "".join(
    f"        {f.name}: {f.metadata['setting'].help}\n" for f in fields(Settings)
)


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line "name: old -> new" for each setting that differs."""
    return [f"{n}: {old.get(n)!r} -> {new.get(n)!r}" for n in sorted(old | new) if old.get(n) != new.get(n)]

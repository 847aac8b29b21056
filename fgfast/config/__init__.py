"""Frozen settings: what to make, and with which methods. A run is only resumed with the settings that it began with.

selection  which samples are converted
values     names that settings take, and values given in several forms
no_effect  when a setting has no effect beside the others
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

from fgfast import methods
from fgfast.background import Background as Background
from fgfast.config import no_effect
from fgfast.config.selection import Selection as Selection
from fgfast.config.values import (
    DECODERS,
    CropName,
    DecoderName,
    FlagsName,
    FormatName,
    MaskFormat,
    PlacementName,
    as_devices,
    as_share,
)
from fgfast.errors import UsageError
from fgfast.methods import BackendName, ModelSpec, Precision
from fgfast.setting import WHOLE, Setting


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
        idle=no_effect.beside_a_pack,
    )
    mask_dir: str | Path | None = _set(
        None,
        "Names the masks for the segmenter annotations: a folder of masks named like their images, the output folder "
        "of an earlier run, or a COCO file.",
        unset="the data set's own masks",
        result=False,  # their content is in the digest of the samples
        idle=lambda s: "without segmenter annotations" if s.segmenter != "annotations" else "",
    )
    decisions: str | Path | None = _set(
        None,
        "Takes what people decided in another review, given as its decisions.sqlite or its output folder: their masks "
        "instead of the models', and what they rejected is skipped. Those of this output itself always hold.",
        unset="only those of this output",
        result=False,  # the digest of what is in force is in the fingerprint
    )
    masks_from: str | Path | None = _set(
        None,
        "Takes masks, boxes, flags and doubt from a pack, which fgfast masks export makes, and no model: a file, an "
        "https:// address, or hf://datasets/OWNER/NAME/FILE. Images are known by the SHA-256 of their files.",
        unset="no pack",
        result=False,  # its digest is in the fingerprint
    )
    otherwise: str = _set(
        "none",
        "Names the segmenter of images that the pack has no mask of; none lets them fail.",
        choices=lambda: ("none", *(name for name in methods.names("segmenter") if name != "annotations")),
        idle=lambda s: "without masks-from" if s.masks_from is None else "",
    )
    second_look: bool = _set(
        False,
        "Segments every image with other boxes as well, and notes where the masks disagree: doubtful ones are found "
        "better. GrabCut takes six times as long; SAM's boxes share one run of its decoder.",
        idle=lambda s: (
            f"with segmenter {s.segmenter}, which no box changes" if s.segmenter in no_effect.UNPROMPTED else ""
        ),
    )
    vocabulary: str | None = _set(
        None,
        "Names what a detector looks for: words separated by commas, a file with one name per line, or lvis.",
        unset="the subject of the data set",
        idle=no_effect.without_words,
    )
    follow_links: bool = _set(
        False,
        "Follows links that lead out of the data set, or of the folder of masks, and may bring any file of yours into "
        "the output.",
        result=False,  # a file's content is in the digest of the samples, and in the stamp of the source
    )
    model_weights: str = _set(
        "cached",
        "Loads weights from the cache (cached) or a file, or draws them at random (random:SEED), for testing.",
        idle=no_effect.without_models,
    )
    precision: str = _set(
        "auto",
        "Sets the precision of the models' matrix products. auto takes bf16, or else fp16, if the devices support it "
        "natively. fp8 and int8 need TensorRT and fgfast export --calibrate; they quantise SAM's image encoder, and "
        "the rest is fp16.",
        choices=lambda: ("auto", *methods.PRECISIONS),
        idle=no_effect.without_models,
    )
    devices: str | tuple[str, ...] = _set(
        "auto",
        "Runs workers on these devices: cpu, cuda:0, or several between commas. auto takes all GPUs, or the CPU.",
        result=False,
        idle=no_effect.without_gpu_work,
    )
    workers_per_device: str | int = _set(
        "auto",
        "Runs this many worker processes per device. auto takes one, and more on a GPU that one cannot keep busy.",
        choices=lambda: ("auto", *"12345678"),
        result=False,
    )
    placement: PlacementName = _set(
        "auto",
        "Runs both models on every device (replicate), or each on its own (split). auto measures and takes the faster.",
        choices=lambda: get_args(PlacementName),
        result=False,
        idle=no_effect.without_two_models,
    )
    batch: int | None = _set(
        None,
        "Limits the images per batch of a model; batches become smaller if memory runs short.",
        least=1,
        unset="depends on the device",
        result=False,
        idle=no_effect.without_models,
    )
    model_threads: int | None = _set(
        None,
        "Sets the number of threads of a model on a CPU. It affects the last digits of results.",
        least=1,
        unset="one per core",
        idle=no_effect.without_models,
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
        idle=no_effect.without_models,
    )
    background: Background | str | Path | tuple[int, int, int] = _set(
        Background(),
        "Replaces the background by black, white, mean (ImageNet's), a CSS colour (navy, #ff0000), R,G,B, transparent, "
        "blur, or an image file.",
    )
    format: FormatName = _set(
        "same",
        "Writes images in this format; same keeps the format of each file's name, and jpg means jpeg.",
        choices=lambda: get_args(FormatName),
        aliases={"jpg": "jpeg"},
    )
    keep_names: bool = _set(
        False,
        "Keeps every file name even if the format changes.",
        idle=lambda s: "with format 'same': names do not change then" if s.format == "same" else "",
    )
    quality: int = _set(
        95,
        "Sets JPEG and WebP quality; WebP is lossless at 100 and with alpha.",
        least=1,
        most=100,
        idle=lambda s: "with format png, which is lossless" if s.format == "png" else "",
    )
    crop: CropName = _set(
        "none", "Crops images to the box, or to a square around it.", choices=lambda: get_args(CropName)
    )
    pad: float = _set(
        0.0,
        "Adds a margin to the crop, as a fraction of the box's longer side.",
        least=0,
        most=10,
        idle=lambda s: "without crop: add --crop box or --crop square" if s.crop == "none" else "",
    )
    masks: MaskFormat = _set(
        "png",
        "Stores masks as PNG files (png), as run lengths in one Parquet file (rle), or not at all (none).",
        choices=lambda: get_args(MaskFormat),
    )
    flags: FlagsName = _set(
        "doubt",
        "Flags the most doubtful results of the run (doubt), or whatever a rule finds odd (rules).",
        choices=lambda: get_args(FlagsName),
    )
    flag_rate: str | float = _set(
        "5%",
        "Flags this share of the results, the most doubtful ones, and all that are surely wrong; 0% only these.",
        idle=no_effect.by_rules,
    )
    flag_least: int = _set(
        10,  # that many are looked at in a minute; 5 % of a small set would be one or two, and say nothing about it
        "Flags at least this many of the most doubtful results, or all where there are fewer, however small the share.",
        least=0,
        most=10_000,
        idle=no_effect.without_rate,
    )
    doubt_weights: str | Path | None = _set(
        None,
        "Weighs the signs of an error by this file, which bench/review_trial.py --fit writes.",
        unset="those of fgfast",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "background", Background.of(self.background))
        object.__setattr__(self, "devices", as_devices(self.devices))
        object.__setattr__(self, "flag_rate", as_share(self.flag_rate))
        object.__setattr__(self, "workers_per_device", str(self.workers_per_device))  # a number is allowed
        for f in fields(self):
            setting: Setting = f.metadata["setting"]
            value = getattr(self, f.name)
            if isinstance(value, str) and value in setting.aliases:
                value = setting.aliases[value]
                object.__setattr__(self, f.name, value)
            setting.check(f.name.replace("_", "-"), value, f.type in WHOLE)
        for name, why in idle(self).items():
            value = getattr(self, name)
            shown = ",".join(value) if isinstance(value, tuple) else value
            raise UsageError(f"{name.replace('_', '-')}{'' if value is True else f' {shown}'} has no effect {why}")

    def spec(self, name: str, device: str, images: int | None = None) -> ModelSpec:
        """A model of these settings on a device, for so many images; precision and backend must not be "auto"."""
        assert self.precision != "auto" and self.backend != "auto"
        precision, backend = cast(Precision, self.precision), cast(BackendName, self.backend)
        if (method := methods.find(name)) is not None and method.kind == "detector":  # only the segmenter is quantised
            precision = methods.plain_precision(precision)
        return ModelSpec(name, self.model_weights, precision, device, backend, self.batch, images=images)

    @property
    def models(self) -> tuple[methods.Method, ...]:
        """The detector and the segmenter, where they are models."""
        both = methods.find(self.detector, "detector"), methods.find(self.segmenter, "segmenter")
        return tuple(method for method in both if method is not None and method.is_model)

    @property
    def fill(self) -> Background:
        """The background, parsed."""
        return cast(Background, self.background)

    @property
    def places(self) -> tuple[str, ...]:
        """The names of the devices, parsed."""
        return cast("tuple[str, ...]", self.devices)

    @property
    def flag_share(self) -> float:
        """The share of the results that is flagged, 0..1."""
        return float(str(self.flag_rate).removesuffix("%")) / 100

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


def idle(settings: Any) -> dict[str, str]:
    """Return setting -> why its value, which is not the default, has no effect beside the other ones.

    Args:
        settings: Settings, or any object with their attributes.
    """
    given = {f.name: f for f in fields(Settings) if getattr(settings, f.name) != f.default}
    reasons = {name: f.metadata["setting"].idle(settings) for name, f in given.items()}
    return {name: why for name, why in reasons.items() if why}


def resolved(settings: Settings, **choices: Any) -> tuple[Settings, dict[str, str]]:
    """Replace "auto" by choices; return the settings, and setting -> why it has no effect and has its default again."""
    values = {f.name: getattr(settings, f.name) for f in fields(Settings)} | choices
    without = idle(SimpleNamespace(**values))
    defaults = {f.name: f.default for f in fields(Settings) if f.name in without}
    return replace(settings, **choices | defaults), without


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line "name: old -> new" for each setting that differs.

    A setting that one of them lacks is newer than it, and had the effect of its default then.
    """
    defaults = {f.name: f.default for f in fields(Settings)} | Settings().describe()
    pairs = {name: (old.get(name, defaults.get(name)), new.get(name, defaults.get(name))) for name in old | new}
    return [f"{name}: {a!r} -> {b!r}" for name, (a, b) in sorted(pairs.items()) if a != b]

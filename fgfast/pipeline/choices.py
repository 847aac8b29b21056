"""The choice of detector, segmenter, devices, precision and backend: replaces every "auto", with reasons."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from fgfast import methods
from fgfast.config import Settings, resolved
from fgfast.config.values import ON_GPU
from fgfast.datasets.layout import Dataset
from fgfast.errors import UsageError
from fgfast.io.decoders import available, decoder
from fgfast.machine import available_cores
from fgfast.methods import Kind, Method
from fgfast.models.files import weights
from fgfast.pipeline.pack_source import with_otherwise
from fgfast.records import Sample


def choose(
    dataset: Dataset, settings: Settings, measure: bool = True, images: int | None = None
) -> tuple[Settings, list[str]]:
    """Replace every "auto" by a choice; return the settings and one sentence of reason per choice.

    Args:
        dataset: the data set to convert.
        settings: the settings as given.
        measure: whether to time backends and forms where the faster one is not known yet.
        images: the number of images of the run; None where it is not known.
    """
    reasons: list[str] = []
    words = bool(settings.vocabulary or dataset.subject)
    settings = with_otherwise(settings, reasons)
    alone = settings.masks_from is not None and settings.otherwise == "none"  # a pack: nothing detects or segments
    asked = methods.find(settings.segmenter, "segmenter")
    if alone:
        detector = "annotations"
    elif asked is not None and asked.annotated:
        detector = _beside_masks(settings, reasons)
    else:
        detector = _chosen("detector", settings.detector, words, dataset, reasons)
        if methods.method(detector, "detector").annotated and not _boxes(dataset):
            raise UsageError(f"the data set {dataset.name} has no boxes: use --detector center")
    segmenter = settings.segmenter if alone else _chosen("segmenter", settings.segmenter, words, dataset, reasons)
    settings = _with_methods(settings, detector, segmenter, reasons)
    _check(settings)
    if settings.models and methods.seed_of(settings.model_weights) is not None:
        reasons.append(f"weights {settings.model_weights}: random, for testing; masks and boxes are meaningless")
    reasons += _not_pinned(settings)
    if settings.models:
        settings = choose_devices(settings, reasons, measure, images)
    return _choose_decoder(settings, reasons), reasons


def _not_pinned(settings: Settings) -> list[str]:
    """Return a reason for each model whose weights nobody vouches for but the server that they were fetched from."""
    if settings.model_weights != "cached":
        return []
    names = [model.weights for model in settings.models if model.weights and not weights.published(model.weights)]
    return [f"weights of {name}: not pinned, no digest is published; they are those first seen here" for name in names]


def _beside_masks(settings: Settings, reasons: list[str]) -> str:
    """Return the detector beside annotated masks, which need none."""
    if settings.detector not in ("auto", "annotations"):
        raise UsageError(f"annotated masks need no detector: omit --detector {settings.detector}")
    reasons.append("detector annotations: the data set's box of the image, or the box around its mask if it has none")
    return "annotations"


def warnings(dataset: Dataset, settings: Settings, samples: Sequence[Sample]) -> tuple[str, ...]:
    """Return what makes many of the masks doubtful, and the way out: one text each, for plan, summary and report.

    Args:
        dataset: the data set to convert.
        settings: the settings, with every "auto" replaced.
        samples: the selected samples.
    """
    detector, without = methods.method(settings.detector, "detector"), sum(not len(sample.boxes) for sample in samples)
    if any(m.annotated and m.name == settings.segmenter for m in methods.methods("segmenter")):
        return ()  # the masks are the data set's own
    if detector.blind:
        said = (
            "the middle of every image (all but a tenth on each side) stands in for a box of its subject: expect many "
            "wrong masks, with and without flags"
        )
    elif detector.annotated and without:
        said = (
            f"{without:,} of {len(samples):,} images have no box, and their middle stands in for it: they are flagged "
            "'no box', and many of their masks will be wrong"
        )
    else:
        return ()
    return (f"{said}. Better: {', or '.join(_ways_out(dataset, detector))}.",)


def _ways_out(dataset: Dataset, used: Method) -> Iterator[str]:
    """Yield what gives better boxes or masks than the middle of an image."""
    if not used.annotated and (boxes := _boxes(dataset)):
        yield f"the data set's own boxes, for {boxes:,} images (--detector annotations)"
    elif dataset.name == "folder":
        yield "a boxes.csv in the data set's folder, with the columns path,x0,y0,x1,y1"
    detector = next(method for method in methods.methods("detector") if method.is_model)
    pull = "" if weights.find(detector.weights) else f"fgfast models pull {detector.weights}, then "
    words = "" if dataset.subject else " --vocabulary WORDS"
    yield f"a detector ({pull}--detector {detector.name}{words})"
    yield "masks that exist already (--segmenter annotations)"


def choose_without_dataset(settings: Settings) -> tuple[Settings, list[str]]:
    """Replace every "auto" for images that belong to no data set; return the settings and the reasons.

    With detector "annotations" the box of every image is known, and nothing detects.
    """
    reasons: list[str] = []
    words = bool(settings.vocabulary)
    detector = _chosen("detector", settings.detector, words, None, reasons)
    segmenter = _chosen("segmenter", settings.segmenter, words, None, reasons)
    if methods.method(segmenter, "segmenter").annotated:
        raise UsageError(f"segmenter {segmenter} reads the masks of a data set; for single images choose another one")
    settings = replace(_with_methods(settings, detector, segmenter, reasons), decoder="cpu")
    _check(settings)
    return (choose_devices(settings, reasons) if settings.models else settings), reasons


def choose_segmenter(settings: Settings) -> Settings:
    """Choose segmenter, device and precision for one image whose box is known; return the settings."""
    batch = 1 if methods.may_be_model(settings.segmenter) else None
    return choose_without_dataset(replace(settings, detector="annotations", batch=batch))[0]


def _with_methods(settings: Settings, detector: str, segmenter: str, reasons: list[str]) -> Settings:
    """Replace the methods; what has no effect beside them, because "auto" took no model, is said and dropped.

    Raises:
        UsageError: the vocabulary or the weights have no effect; images made without them would be others than wanted.
    """
    choices: dict[str, Any] = {"detector": detector, "segmenter": segmenter}
    if settings.masks_from is not None and settings.otherwise != "none":
        choices["otherwise"] = segmenter
    if not any(map(methods.may_be_model, (detector, segmenter))):
        choices["devices"] = _only_cpus(settings, reasons)
    settings, idle = resolved(settings, **choices)
    for name, why in idle.items():
        if name in ("vocabulary", "model_weights"):
            pull = " ".join(method.weights for method in methods.models() if method.automatic)
            raise UsageError(
                f"{name.replace('_', '-')} has no effect {why}. auto takes a model whose weights are on this machine: "
                f"fgfast models pull {pull} lvis, or name the method, or omit --{name.replace('_', '-')}"
            )
        reasons.append(f"{name.replace('_', '-')}: no effect {why}")
    return settings


def choose_devices(settings: Settings, reasons: list[str], measure: bool = True, images: int | None = None) -> Settings:
    """Choose devices, precision and backend for the models; return the settings. The arguments are those of `choose`.

    PyTorch's forms are chosen again in each process, by what was measured here.
    """
    from fgfast.models.serving import devices, forms
    from fgfast.models.serving.backend import choose_backend

    places = devices.choose_devices(settings.places)
    precision, why = devices.choose_precision(settings.precision, places)
    reasons.append(f"devices {','.join(places)}, precision {precision}: {why}")
    asked, settings = settings.backend, replace(settings, devices=places, precision=precision, backend="torch")
    each = per_device(images, places)
    specs = {d: [settings.spec(method.name, d, each) for method in settings.models] for d in dict.fromkeys(places)}
    found = [choose_backend(one, asked, measure) for one in specs.values()]
    backend, why = found[0]
    if any(other != backend for other, _ in found):
        backend, why = "torch", "the only one available on all devices"
    reasons.append(f"backend {backend}: {why}")
    if backend == "torch":
        reasons += forms.reasons([spec for one in specs.values() for spec in one], measure)
    threads = (settings.model_threads or available_cores()) if "cpu" in places else None
    return replace(settings, backend=backend, model_threads=threads)


def per_device(images: int | None, places: Sequence[str]) -> int | None:
    """Return the number of images that each device computes of a run; None where it is not known."""
    return None if images is None else -(-images // len(places))


def _check(settings: Settings) -> None:
    """Raise unless both methods can be used here."""
    for method in (methods.method(settings.detector, "detector"), methods.method(settings.segmenter, "segmenter")):
        if method.check:
            methods.resolve(method.check)()


def _chosen(kind: Kind, asked: str, words: bool, dataset: Dataset | None, reasons: list[str]) -> str:
    """Return the name of the requested method; for "auto", of the first in the table that is usable here.

    Args:
        kind: of the method.
        asked: its name, or "auto".
        words: whether there is a name for what a detector is to look for.
        dataset: the data set, where there is one.
        reasons: gets the reason.
    """
    if asked != "auto":
        name = methods.method(asked, kind).name
        reasons.append(f"{kind} {name}: as requested")
        return name
    missing: list[Method] = []
    for method in methods.methods(kind):
        if not method.automatic:
            continue
        usable, why = _usable(method, words, dataset)
        if usable:
            if not method.is_model and missing:
                pull = " ".join(m.weights for m in missing)
                why = (
                    why or f"the weights of {missing[0].summary} are not cached; to get them: fgfast models pull {pull}"
                )
            reasons.append(f"{kind} {method.name}: {why}")
            return method.name
        if method.is_model:
            missing.append(method)
    raise UsageError(f"no {kind} can be used here: name one, {', '.join(methods.names(kind)[1:])}")


def _usable(method: Method, words: bool, dataset: Dataset | None) -> tuple[bool, str]:
    """Return whether "auto" may choose a method, and why."""
    if method.is_model:
        here = importlib.util.find_spec("torch") is not None and weights.find(method.weights) is not None
        if method.kind == "detector":  # it needs words to look for
            here = here and words and weights.find("lvis") is not None
        return here, "its weights are cached"
    if method.annotated:
        if dataset is None:
            return False, "the images belong to no data set"
        count = _boxes(dataset)
        return count > 0, f"the data set has boxes for {count:,} of {len(dataset.samples):,} images"
    if method.kind == "detector":
        return True, "the data set has no boxes" if dataset else "no box is given, and no words to look for"
    return True, ""


def _boxes(dataset: Dataset) -> int:
    """Count the samples that have boxes."""
    return sum(len(sample.boxes) > 0 for sample in dataset.samples)


def _only_cpus(settings: Settings, reasons: list[str]) -> tuple[str, ...]:
    """Return the devices where no model runs: a GPU can only decode."""
    for device in settings.places:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
            raise UsageError(f"there is no device {device!r}; devices are called cpu, cuda:0, cuda:1, ...")
    if settings.decoder in ON_GPU:
        return settings.places if settings.places != ("auto",) else ("cuda:0",)
    if any(device.startswith("cuda") for device in settings.places):
        reasons.append("devices: no model runs, so a GPU has nothing to do")
    return ("cpu",) * len(settings.places)


def _choose_decoder(settings: Settings, reasons: list[str]) -> Settings:
    """Replace "auto" where no GPU is used: the CPU's decoder is the fastest there, and the reference of all others.

    With a GPU the choice is made when a run starts; see fgfast.pipeline.decoder_choice.
    """
    if settings.decoder != "auto":
        for device in dict.fromkeys(settings.places):
            if settings.decoder not in available(device):
                decoder(settings.decoder, device)  # raises the reason
        reasons.append(f"decoder {settings.decoder}: as requested")
        return settings
    if any(available(device)[0] in ON_GPU for device in settings.places):
        reasons.append("decoder auto: chosen when the run starts")
        return settings
    return replace(settings, decoder="cpu")


def quantised_graphs(settings: Settings) -> dict[str, dict[str, str]]:
    """Map "scales" to model -> digest of the scales of its quantised graphs; empty where nothing is quantised.

    Any other graph follows from the weights, the precision and the version of fgfast; these follow from the images of
    a calibration, too. All encoders of a folder have the same scales (fgfast.export.leftovers), so that the digest does
    not depend on the batch.
    """
    found = {}
    for method in settings.models:
        spec = settings.spec(method.name, settings.places[0])
        if spec.precision in methods.QUANTISED:
            graphs = methods.resolve(method.graphs)(spec)
            digests = {str(graph.manifest.quantisation.get("scales", ""))[:16] for graph in graphs}
            found[method.name] = " ".join(sorted(filter(None, digests)))
    return {"scales": found} if found else {}


def weights_used(settings: Settings) -> dict[str, str]:
    """Map each model to the identity of its weights, for run.json and for the check before a run is resumed."""
    from fgfast.models.files.graph_files import identity

    return {method.name: identity(method.name, settings.model_weights) for method in settings.models}

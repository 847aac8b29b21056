"""The choice of a graph's form in PyTorch on a GPU: eager, recorded or compiled, with or without cuDNN's attention.

All are measured on this machine (fgfast.models.serving.speed), and compared by the work of a mean image, which depends
on the canvases of a form. Compiling takes minutes the first time, and each process
traces the graph again; it is done where it saves more time than that over the images of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fgfast import methods
from fgfast.errors import UsageError
from fgfast.methods import ModelSpec
from fgfast.models.serving import speed
from fgfast.models.serving.speed import Trial

MANY = 1_000_000
"""The number of images for which everything that makes a model faster pays."""
# A form must be faster than eager by this factor.
_GAIN = 1.02
# Compiling is tried where it could pay: it saves a third of the time at most, and takes a minute at least per shape.
_MOST_SAVED, _LEAST_SECONDS = 1 / 3, 60.0
# The GPUs on which PyTorch prefers cuDNN's attention to its own (check_prefer_cudnn_attention in
# ATen/native/transformers/cuda/sdp_utils.cpp), by compute capability; elsewhere it would not be taken.
_CUDNN_FIRST = ((9, 0), (10, 0))


@dataclass(frozen=True, slots=True)
class Form:
    """A form that was chosen.

    Attributes:
        name: one of fgfast.backends.torch.FORMS.
        why: the reason in a few words.
        seconds: per image; None where it was not measured.
    """

    name: str
    why: str
    seconds: float | None = None


def form_of(spec: ModelSpec) -> str:
    """Return the form that the spec names, else the best one for it; see `choose`."""
    return spec.form or choose(spec).name


def choose(spec: ModelSpec, measure: bool = True, again: bool = False) -> Form:
    """Return the best form of a model's graph in PyTorch for the images of the spec.

    The number of images is that of a run on one device; where it is not known, nothing is compiled.

    Args:
        spec: of the model.
        measure: whether to measure what is not known; this takes minutes. What is not known does not count.
        again: whether to try once more what failed for want of memory.

    Raises:
        UsageError: the model cannot be computed in PyTorch on this device.
    """
    if not spec.device.startswith("cuda"):
        return Form("eager", "on a CPU")
    shapes = methods.method(spec.name).shapes
    if not shapes:
        return Form("eager", "the shapes of its inputs are too many to be recorded")
    trials = _plain(spec, measure, again)
    if not trials:
        return Form("eager", "a run measures first which form is faster")
    eager = trials.get("eager", Trial())
    if eager.failed and not eager.passing:
        raise UsageError(f"{spec.name} cannot be computed in PyTorch on {spec.device}: {eager.failed}")
    if eager.failed:
        return Form("eager", f"not measured: {eager.failed}")
    notes: list[str] = []
    best = _fastest(trials)
    _compile(spec, trials, best, shapes, notes, measure, again)
    compiled = next((form for form in trials if "compiled" in form and not trials[form].failed), None)
    if compiled and _pays(spec.images, trials[compiled], trials[best], shapes, notes):
        best = compiled
    said = [trials[best].chosen] if trials[best].chosen else []
    return Form(best, "; ".join([_figures(spec, trials), *notes, *_failures(trials), *said]), trials[best].seconds)


def reasons(specs: Sequence[ModelSpec], measure: bool = True) -> list[str]:
    """Return a sentence about the form of each model that runs in PyTorch; it is measured where it is not known.

    Args:
        specs: the models on all devices of a run.
        measure: see `choose`.
    """
    found: dict[str, list[str]] = {}
    for spec in specs:
        if spec.device.startswith("cuda"):
            form = choose(spec, measure, again=measure)
            found.setdefault(f"{spec.name} in PyTorch {form.name}: {form.why}", []).append(spec.device)
    several = len({spec.name for spec in specs}) < len(found)
    return [f"{text} ({', '.join(devices)})" if several else text for text, devices in found.items()]


def _plain(spec: ModelSpec, measure: bool, again: bool) -> dict[str, Trial]:
    """Return the trials of the forms that compile nothing; a model that cannot run eagerly is not tried further."""
    forms = ["eager", "recorded"]
    if spec.precision != "fp32" and _capability(spec.device) in _CUDNN_FIRST:
        forms.append("recorded+cudnn")
    trials: dict[str, Trial] = {}
    for form in forms:
        if (found := _tried(spec, form, measure, again)) is not None:
            trials[form] = found
        if form == "eager" and (found is None or found.failed):
            break
    return trials


def _tried(spec: ModelSpec, form: str, measure: bool, again: bool) -> Trial | None:
    return speed.tried(
        replace(spec, form=form), f"torch {form}", twice="compiled" in form, measure=measure, again=again
    )


def _fastest(trials: dict[str, Trial]) -> str:
    """Return the fastest form; eager unless another one is clearly faster."""
    working = [form for form, trial in trials.items() if not trial.failed]
    best = min(working, key=lambda form: trials[form].seconds)
    return best if trials[best].seconds * _GAIN < trials["eager"].seconds else "eager"


def _compile(
    spec: ModelSpec, trials: dict[str, Trial], best: str, shapes: int, notes: list[str], measure: bool, again: bool
) -> None:
    """Add the trial of the compiled form, where it is known or could pay; else say why not."""
    if all(trial.failed for form, trial in trials.items() if "recorded" in form):
        return
    form = f"compiled+{best}" if best != "eager" else "compiled+recorded"
    seconds, least = (spec.images or 0) * trials[best].seconds, shapes * _LEAST_SECONDS / _MOST_SAVED
    found = _tried(spec, form, measure and seconds > least, again)
    if found is not None:
        trials[form] = found
    elif spec.images is None:
        notes.append("not compiled: the number of images is not known")
    elif seconds <= least:
        notes.append(
            f"compiling was not tried: {spec.images:,} images take {seconds:.0f} s, and it pays from {least:.0f} s on"
        )


def _pays(images: int | None, compiled: Trial, plain: Trial, shapes: int, notes: list[str]) -> bool:
    """Whether compiling saves more over the images than it takes in a process that finds the compiled code."""
    takes = shapes * (compiled.ready - plain.ready)
    saves = (plain.seconds - compiled.seconds) * (images or 0)
    pays = images is not None and saves > takes
    over = "an unknown number of images" if images is None else f"{images:,} images"
    saved = "" if images is None else f" and saves {max(saves, 0):.0f} s"
    notes.append(f"compiling takes {takes:.0f} s in each process{saved} over {over}")
    return pays


def _figures(spec: ModelSpec, trials: dict[str, Trial]) -> str:
    figures = ", ".join(f"{form} {1e3 * t.seconds:.3g} ms" for form, t in trials.items() if not t.failed)
    mean = " of the mean size" if methods.method(spec.name).share else ""
    return f"measured on this machine, per image{mean}: {figures}"


def _failures(trials: dict[str, Trial]) -> list[str]:
    return [f"{form} cannot be used here ({trial.failed})" for form, trial in trials.items() if trial.failed]


def _capability(device: str) -> tuple[int, int]:
    import torch

    return torch.cuda.get_device_capability(device)

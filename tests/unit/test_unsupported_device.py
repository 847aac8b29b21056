"""A GPU that some code was not compiled for: what runs instead, and what the error says where nothing does.

Such a GPU is pretended: the reason that CUDA would give, and its name and compute capability.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models need the extra models")

from fgfast import Settings, methods  # noqa: E402
from fgfast.errors import DeviceFailedError, UsageError  # noqa: E402
from fgfast.models.detic.suppression import fastest_on, nms, suppress_on_gpu  # noqa: E402
from fgfast.models.serving import chosen  # noqa: E402
from fgfast.ops import cuda  # noqa: E402
from fgfast.pipeline import job  # noqa: E402
from fgfast.runner import WorkerSpec  # noqa: E402

NO_KERNEL = "no kernel image is available for execution on the device"
SETTINGS = Settings(
    detector="center", segmenter="sam_vit_l", devices="cuda:0", precision="fp16", backend="torch", decoder="cpu"
)


@pytest.fixture(autouse=True)
def volta(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="Tesla V100", major=7, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)


class TestSuppression:
    @pytest.fixture(autouse=True)
    def built(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(cuda, "built", lambda: True)
        fastest_on.cache_clear()
        yield
        fastest_on.cache_clear()

    def test_where_the_code_runs_the_native_op_is_taken(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        asked: list[int] = []
        monkeypatch.setattr(cuda, "refusal", lambda device: asked.append(device) or "")
        assert fastest_on(torch.device("cuda:1")) is suppress_on_gpu
        assert asked == [1] and not caplog.messages

    def test_where_it_does_not_pytorchs_is_taken_and_the_log_says_why(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(cuda, "refusal", lambda device: f"cudaErrorNoKernelImageForDevice, {NO_KERNEL}")
        with caplog.at_level(logging.WARNING, "fgfast"):
            assert [fastest_on(torch.device("cuda:0")) for _ in range(2)] == [nms, nms]
        (message,) = caplog.messages
        for part in ("cuda:0 (Tesla V100, compute capability 7.0)", NO_KERNEL, "PyTorch's is used", "reinstall"):
            assert part in message


class Model:
    """A model on a GPU whose launch fails."""

    device, batch, depth, buckets = "cuda:0", 2, 2, 1
    bucket = rows = wait = read = finish = shrink = fill = slot = staticmethod(lambda *_: 1)

    def __init__(self, error: Exception) -> None:
        self.error = error

    def launch(self, *_: Any) -> None:
        raise self.error


def raised(monkeypatch: pytest.MonkeyPatch, build: Callable[..., Any]) -> pytest.ExceptionInfo[Exception]:
    """Open a job on a GPU, with a segmenter that `build` builds; return what it raises."""
    center, sam = methods.method("center", "detector"), methods.method("sam_vit_l", "segmenter")
    resolve = methods.resolve
    monkeypatch.setattr(methods, "resolve", lambda name: build if name == sam.build else resolve(name))
    made = job.ConvertJob(SETTINGS, center, sam, (), True, Path("out"), "images", "masks", None, 1)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        made.open(WorkerSpec("cuda:0", "cuda:0"))
    return caught


FAILURES = {
    "torch": RuntimeError(f"CUDA error: {NO_KERNEL}\nCompile with `TORCH_USE_CUDA_DSA` to enable ..."),
    "our ops": RuntimeError(f"nms on the GPU: cudaErrorNoKernelImageForDevice, {NO_KERNEL}"),
}


class TestOpening:
    @pytest.mark.parametrize("library", FAILURES)
    @pytest.mark.parametrize("when", ["loaded", "tried out"])
    def test_the_error_names_model_and_device_and_says_what_to_try(
        self, monkeypatch: pytest.MonkeyPatch, library: str, when: str
    ) -> None:
        def build(spec: methods.ModelSpec) -> Any:
            if when == "loaded":
                raise FAILURES[library]
            return Model(FAILURES[library])

        caught = raised(monkeypatch, build)
        assert caught.type is UsageError and caught.value.__cause__ is FAILURES[library]
        for part in ("sam_vit_l in fp16 (torch)", "cuda:0 (Tesla V100, compute capability 7.0)", NO_KERNEL):
            assert part in str(caught.value)
        assert "; try --precision fp32, --devices cpu or another model" in str(caught.value)

    @pytest.mark.parametrize("error", [DeviceFailedError("cuda:0 failed"), TypeError("a bug")])
    def test_other_errors_pass(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        assert raised(monkeypatch, lambda spec: Model(error)).value is error

    def test_a_gpu_that_no_longer_tells_its_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def lost(device: str) -> Any:
            raise RuntimeError("CUDA error: unknown error")

        monkeypatch.setattr(torch.cuda, "get_device_properties", lost)
        assert "does not run on cuda:0: no" in str(raised(monkeypatch, lambda spec: Model(RuntimeError("no"))).value)


def test_what_the_models_chose_is_among_the_facts_of_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent adds it to the reasons of the run, which are printed and are in run.json."""
    monkeypatch.setattr(chosen, "_SENTENCES", {})
    monkeypatch.setattr(cuda, "built", lambda: True)
    monkeypatch.setattr(cuda, "refusal", lambda device: NO_KERNEL)
    fastest_on.cache_clear()
    assert fastest_on(torch.device("cuda:0")) is nms
    fastest_on.cache_clear()
    made = job.ConvertJob(
        Settings(detector="center", segmenter="box", decoder="cpu"),
        methods.method("center"),
        methods.method("box"),
        ("bird",),
        False,
        Path("out"),
        "images",
        "masks",
        None,
        1,
    )
    (sentence,) = made.open(WorkerSpec("cpu", "cpu", (0, 1))).facts["chosen"]
    assert sentence == f"suppression of Detic's proposals on cuda:0 is PyTorch's, which waits for the GPU: {NO_KERNEL}"

"""Slots: their buffers, what is queued and in which order, and what libraries say when a device is short or broken."""

from __future__ import annotations

import pickle
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="models need the extra models")

import unit.fake_streams as fake  # noqa: E402

from fgfast.backends.slots import ComputeStream, Slot, failure_of, translated  # noqa: E402
from fgfast.errors import DeviceFailedError, DeviceMemoryError, GraphError, UsageError  # noqa: E402
from fgfast.graphs import Port  # noqa: E402
from fgfast.models.serving.batches import ImageSlot, resized  # noqa: E402

PORTS = (Port("x", "float32", ("batch", 3), "numbers"), Port("n", "int64", ("batch",), "one each"))
IMAGES = (Port("pixels", "uint8", ("batch", 64, 96, 3), "RGB"), Port("sizes", "int64", ("batch", 2), "of each"))


class Doubling:
    """A session whose result is ready when the stream gets there, and whose numbers are in one place meanwhile."""

    def __init__(self, gpu: fake.Gpu | None) -> None:
        self.gpu, self.inside = gpu, torch.zeros(4, 3)

    def run(self, given: dict[str, Any]) -> dict[str, Any]:
        x, out = given["x"], torch.full_like(given["x"], -1)

        def enter() -> None:
            self.inside[: len(x)] = x

        def leave() -> None:
            out[:] = 2 * self.inside[: len(x)]

        for step in (enter, leave):
            self.gpu.queue(step) if self.gpu else step()
        return {"y": out}


def launch(slot: Slot, session: Doubling, rows: int) -> None:
    given = slot.upload(rows)
    with torch.cuda.stream(slot.compute.stream):
        found = session.run(given)
    slot.download(found)


class TestOnTheCpu:
    def test_buffers_are_those_of_the_ports(self) -> None:
        slot = Slot(PORTS, {"batch": 4}, ComputeStream("cpu"))
        assert slot.capacity == 4 and slot.stream is None and slot.event is None
        assert {n: (tuple(t.shape), t.dtype) for n, t in slot.host.items()} == {
            "x": ((4, 3), torch.float32),
            "n": ((4,), torch.int64),
        }

    def test_nothing_is_copied(self) -> None:
        slot = Slot(PORTS, {"batch": 4}, ComputeStream("cpu"))
        given = slot.upload(2)
        assert given["x"].shape == (2, 3) and given["x"].is_contiguous()
        assert given["x"].data_ptr() == slot.host["x"].data_ptr()
        out = torch.ones(2)
        slot.download({"y": out})
        slot.wait()
        assert slot.results["y"] is out

    def test_rows_that_it_does_not_have(self) -> None:
        slot = Slot(PORTS, {"batch": 4}, ComputeStream("cpu"))
        for rows in (0, 5):
            with pytest.raises(ValueError, match=f"a slot of 4 rows cannot upload {rows}"):
                slot.upload(rows)

    def test_ports_of_different_batches(self) -> None:
        other = Port("sizes", "int64", (3, 2), "")
        with pytest.raises(GraphError, match="the same number of rows"):
            Slot((*PORTS, other), {"batch": 4}, ComputeStream("cpu"))


class TestOrder:
    """On fake streams, which do what is queued in any order that was not forbidden."""

    @pytest.mark.parametrize("seed", range(20))
    def test_batches_in_flight_do_not_mix(self, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
        gpu = fake.install(monkeypatch, seed)
        compute = ComputeStream("cpu")
        compute.stream = fake.Stream()
        session = Doubling(gpu)
        slots = [Slot(PORTS, {"batch": 4}, compute) for _ in range(3)]
        wanted: dict[int, Any] = {}
        for turn in range(9):
            which = turn % 3
            if which in wanted:
                slots[which].wait()
                np.testing.assert_array_equal(slots[which].results["y"].numpy(), wanted[which])
            rows = 1 + turn % 4
            numbers = np.random.default_rng(turn).standard_normal((rows, 3), np.float32)
            slots[which].host["x"].numpy()[:rows] = numbers
            launch(slots[which], session, rows)
            assert (slots[which].results["y"].numpy() != 2 * numbers).any(), "computed before anyone waited"
            wanted[which] = 2 * numbers

    def test_the_fake_finds_what_is_not_ordered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same without waiting for the uploads."""
        found = set()
        for seed in range(20):
            with monkeypatch.context() as patch:
                gpu = fake.install(patch, seed)
                compute = ComputeStream("cpu")
                compute.stream = fake.Stream()
                patch.setattr(compute.stream, "wait_stream", lambda other: None)
                slot = Slot(PORTS, {"batch": 4}, compute)
                slot.host["x"][:] = 1.0
                launch(slot, Doubling(gpu), 4)
                slot.wait()
                found.add(bool((slot.results["y"] == 2).all()))
        assert False in found

    def test_outputs_live_until_they_are_copied(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake.install(monkeypatch)
        compute = ComputeStream("cpu")
        compute.stream = fake.Stream()
        slot = Slot(PORTS, {"batch": 4}, compute)
        slot.upload(1)
        out = torch.ones(1, 3)
        alive = weakref.ref(out)
        slot.download({"y": out})
        del out
        assert alive() is not None
        slot.wait()
        assert slot.results["y"].tolist() == [[1.0, 1.0, 1.0]]
        monkeypatch.undo()
        assert slot._computed == ()

    def test_results_land_in_the_same_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake.install(monkeypatch)
        compute = ComputeStream("cpu")
        compute.stream = fake.Stream()
        slot, places = Slot(PORTS, {"batch": 4}, compute), []
        for shape in ((1, 3), (4, 3), (2, 3), (2, 5)):
            slot.upload(1)
            slot.download({"y": torch.ones(shape)})
            slot.wait()
            assert slot.results["y"].shape == shape
            places.append(slot.results["y"].data_ptr())
        assert places[0] == places[1] == places[2] != places[3]


class TestImages:
    def test_a_small_image_after_a_large_one(self) -> None:
        """Rows are what they would be in a new slot: nothing of the image before is left, whatever its shape."""
        generator = np.random.default_rng(0)
        used = ImageSlot(IMAGES, {"batch": 2}, ComputeStream("cpu"))
        for size in ((64, 96), (10, 20), (64, 5), (3, 96), (64, 96), (1, 1), (30, 40), (40, 30)):
            image = generator.integers(1, 256, (50, 70, 3), np.uint8)
            fresh = ImageSlot(IMAGES, {"batch": 2}, ComputeStream("cpu"))
            for slot in (used, fresh):
                slot.place(1, image, size)
            assert torch.equal(used.host["pixels"], fresh.host["pixels"])
            assert used.size(1) == size and used.stored[1] == (50, 70)
            height, width = size
            row = used.host["pixels"][1].numpy()
            np.testing.assert_array_equal(row[:height, :width], resized(image, size))
            assert not row[height:].any() and not row[:, width:].any()
        assert not used.host["pixels"][0].any()
        assert used.size(0) == (64, 96), "a row that was never filled is a black image of the canvas's size"

    def test_a_image_that_failed_leaves_nothing_either(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import fgfast.models.serving.batches as module

        slot, white = ImageSlot(IMAGES, {"batch": 1}, ComputeStream("cpu")), np.full((8, 8, 3), 255, np.uint8)
        slot.place(0, white, (8, 8))

        def half(pixels: Any, size: Any, out: Any, threads: int) -> None:
            out[:] = 77
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(module, "resized", half)
            with pytest.raises(MemoryError):
                slot.place(0, white, (60, 90))
        assert slot.size(0) == (8, 8), "what it says is still an image of the canvas"
        slot.place(0, white, (4, 4))
        assert int(slot.host["pixels"].sum()) == 4 * 4 * 3 * 255

    @pytest.mark.parametrize("implementation", ["native", "reference"])
    @pytest.mark.parametrize("size", [(37, 91), (300, 200), (64, 64)])
    def test_resizing_is_pillows(
        self, monkeypatch: pytest.MonkeyPatch, implementation: str, size: tuple[int, int]
    ) -> None:
        from PIL import Image

        from fgfast import ops

        if implementation == "native" and ops.implementation() != "native":
            pytest.skip("fgfast._native not installed")
        monkeypatch.setattr(ops, "implementation", lambda: implementation)
        image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
        wanted = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
        into = np.zeros((320, 320, 3), np.uint8)
        np.testing.assert_array_equal(resized(image, size), wanted)
        assert resized(image, size, into[: size[0], : size[1]]).base is not None
        np.testing.assert_array_equal(into[: size[0], : size[1]], wanted)


ABSURD = 10**15
SHORT = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.80 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried to"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("std::bad_alloc"),
    GraphError("sam_image_encoder: TensorRT failed: Error Code 2: OutOfMemory (Requested size was 1 bytes.)"),
    GraphError("sam_image_encoder: TensorRT failed: Error Code 1: Cuda Runtime (out of memory)"),
]
BROKEN = [
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"),
    RuntimeError("CUDA driver error: unspecified launch failure"),
    GraphError(
        "detic_detector: TensorRT failed: Error Code 1: Cuda Runtime (an illegal memory access was encountered)"
    ),
]
NEITHER = [
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
    GraphError("sam_mask_decoder: boxes is float64 (1, 4), must be float32 ('pairs', 4)"),
    UsageError("TensorRT runs on a GPU that torch can use; CUDA error: none"),
    KeyError("CUDA error"),
]


def named(error: Exception) -> str:
    return f"{type(error).__name__} {str(error)[:40]}"


class TestFailures:
    def test_memory_that_no_machine_has(self) -> None:
        for allocate in (lambda: torch.zeros(ABSURD), lambda: np.zeros((ABSURD, 8))):
            wanted = r"^cpu does not have enough memory for the batch: .*smaller batch"
            with pytest.raises(DeviceMemoryError, match=wanted), translated("cpu"):
                allocate()

    def test_a_slot_that_no_machine_has(self) -> None:
        with pytest.raises(DeviceMemoryError, match="cpu does not have enough memory"):
            Slot((Port("x", "uint8", ("batch", 1024, 1024, 3), ""),), {"batch": 10**9}, ComputeStream("cpu"))

    def test_memory_that_onnxruntime_does_not_get(self, tmp_path: Path) -> None:
        runtime = pytest.importorskip("onnxruntime")
        onnx = pytest.importorskip("onnx")
        make = onnx.helper
        node = make.make_node("ConstantOfShape", ["n"], ["y"])
        ports = (
            make.make_tensor_value_info("n", onnx.TensorProto.INT64, [1]),
            make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n"]),
        )
        graph = make.make_graph([node], "huge", ports[:1], ports[1:])
        onnx.save(
            make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=10), tmp_path / "huge.onnx"
        )
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        session = runtime.InferenceSession(tmp_path / "huge.onnx", options, providers=["CPUExecutionProvider"])
        with pytest.raises(DeviceMemoryError, match="cpu does not have enough memory"), translated("cpu"):
            session.run(None, {"n": np.array([ABSURD])})
        with pytest.raises(Exception, match="INVALID_ARGUMENT") as caught, translated("cpu"):
            session.run(None, {"n": np.array([1.0])})
        assert not isinstance(caught.value, (DeviceMemoryError, DeviceFailedError))

    @pytest.mark.parametrize("error", SHORT, ids=named)
    def test_short(self, error: Exception) -> None:
        with pytest.raises(DeviceMemoryError, match="cpu does not have enough memory for the batch"), translated("cpu"):
            raise error

    @pytest.mark.parametrize("error", BROKEN, ids=named)
    def test_broken(self, error: Exception) -> None:
        with pytest.raises(DeviceFailedError, match=r"cuda:1 failed: .*new process") as caught, translated("cuda:1"):
            raise error
        assert caught.value.__cause__ is error

    @pytest.mark.parametrize("error", NEITHER, ids=named)
    def test_neither(self, error: Exception) -> None:
        with pytest.raises(type(error)) as caught, translated("cuda:0"):
            raise error
        assert caught.value is error

    def test_pytorchs_class_of_device_errors(self) -> None:
        if not hasattr(torch, "AcceleratorError"):
            pytest.skip("this PyTorch has no AcceleratorError")
        error = torch.AcceleratorError("unspecified launch failure")
        assert failure_of(error) is DeviceFailedError
        error.error_code = 2
        assert failure_of(error) is DeviceMemoryError

    def test_exceptions_cross_processes(self) -> None:
        for kind in (DeviceMemoryError, DeviceFailedError):
            again = pickle.loads(pickle.dumps(kind("cuda:0 has ...")))
            assert type(again) is kind and str(again) == "cuda:0 has ..."

    def test_what_was_allocated_is_given_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the cache is emptied, no frame that the exception went through holds a tensor any more."""
        held: list[weakref.ref[Any]] = []
        alive_then: list[bool] = []
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive_then.append(held[0]() is not None))

        def forward() -> None:
            activations = torch.ones(3)
            held.append(weakref.ref(activations))
            try:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            finally:
                activations.add_(1)

        with pytest.raises(DeviceMemoryError), translated("cuda:0"):
            forward()
        assert alive_then == [False]
        with pytest.raises(DeviceMemoryError), translated("cpu"):
            forward()
        assert len(alive_then) == 1, "there is no such cache on a CPU"

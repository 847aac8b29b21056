"""A fake of the package tensorrt and of torch.cuda, for machines without a GPU. It proves nothing about TensorRT.

It stands for what the stubs of test_tensorrt_real cannot give, builds and runs. It has what is in tensorrt_names, which
is checked against NVIDIA's own bindings; it writes down how it is called, and refuses what TensorRT refuses. Its
engines are ONNX files that onnx's reference evaluator runs on the very addresses it was given.
"""

from __future__ import annotations

import ctypes
import enum
import types
from functools import partial
from importlib.machinery import ModuleSpec
from typing import Any

import numpy as np
import onnx
import onnx.reference
from unit import fake_cuda

_MAGIC = b"fake engine\n"
# Nodes from which a graph is run by ONNX Runtime, because onnx's reference evaluator would take minutes.
_LARGE = 20


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class DataType(enum.Enum):
    FLOAT, HALF, INT64, BOOL, UINT8, BF16 = range(6)


_TYPES = {1: DataType.FLOAT, 2: DataType.UINT8, 7: DataType.INT64, 9: DataType.BOOL, 10: DataType.HALF}


def make(version: str = "10.16.1.11", *, fault: str = "") -> types.ModuleType:
    """A module to stand in sys.modules as "tensorrt".

    Args:
        version: what it says it is.
        fault: "parse", "build", "deserialize", "run" or "numbers": what goes wrong.

    Its list `calls` has what was done, as (name, arguments).
    """
    trt: Any = types.ModuleType("tensorrt")
    trt.__version__, trt.calls, trt.fault = version, [], fault
    trt.__spec__ = ModuleSpec("tensorrt", None)
    trt.ILogger = type("ILogger", (), {**Severity.__members__, "Severity": Severity, "__init__": lambda self: None})
    trt.DataType = DataType
    trt.TensorIOMode = enum.Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
    trt.NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})
    trt.BuilderFlag = enum.IntEnum("BuilderFlag", {"TF32": 7})
    trt.LayerType = enum.Enum("LayerType", ["CONSTANT", "ATTENTION_INPUT"])
    trt.MemoryPoolType = enum.IntEnum("MemoryPoolType", {"WORKSPACE": 0})
    trt.IAttentionInputLayer = IAttentionInputLayer
    trt.init_libnvinfer_plugins = lambda logger, namespace: trt.calls.append(("plugins", namespace))
    for thing in (Builder, OnnxParser, Runtime):
        setattr(trt, thing.__name__, type(thing.__name__, (thing,), {"trt": trt}))
    return trt  # type: ignore[no-any-return]


class Builder:
    trt: Any

    def __init__(self, logger: Any) -> None:
        assert isinstance(logger, self.trt.ILogger)
        self.logger = logger

    def create_network(self, flags: int = 0) -> Any:
        self.trt.calls.append(("create_network", flags))
        return Network(self.trt)

    def create_builder_config(self) -> Config:
        return Config(self.trt)

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Any, config: Config) -> bytes | None:
        self.trt.calls.append(("build", config))
        self.trt.calls.append(("layers", [network.get_layer(n) for n in range(network.num_layers)]))
        if self.trt.fault == "build":
            self.logger.log(Severity.ERROR, "no implementation")
            return None
        for port in network.graph.graph.input:
            if any(d.dim_param for d in port.type.tensor_type.shape.dim):
                assert port.name in config.profiles[0].shapes, "a profile must be set for inputs of dynamic shape"
        config.timings.content += b"measured;"
        shapes = config.profiles[0].shapes if config.profiles else {}
        return _MAGIC + repr((self.trt.__version__, shapes)).encode() + b"\n" + network.graph.SerializeToString()


class Network:
    """What the parser made: a layer a node."""

    def __init__(self, trt: Any) -> None:
        self.trt, self.graph, self.layers = trt, None, None

    @property
    def num_layers(self) -> int:
        return len(self._layers())

    def get_layer(self, index: int) -> Any:
        return self._layers()[index]

    def _layers(self) -> list[Any]:
        if self.layers is None:
            kinds = self.trt.LayerType
            self.layers = [
                ILayer(kinds.ATTENTION_INPUT if node.op_type == "Attention" else kinds.CONSTANT)
                for node in self.graph.graph.node
            ]
        return self.layers


class ILayer:
    """What get_layer returns, whatever the layer's type; only the class to which it is cast knows more."""

    def __init__(self, type: Any) -> None:
        self.type, self._attention = type, types.SimpleNamespace(decomposable=False)


class IAttentionInputLayer(ILayer):
    @property
    def attention(self) -> Any:
        return self._attention


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        assert all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True))
        self.shapes[input] = (min, opt, max)


class Timings:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content


class Config:
    def __init__(self, trt: Any) -> None:
        self.trt, self.timings = trt, Timings(b"")
        self.profiles: list[Profile] = []

    def clear_flag(self, flag: Any) -> None:
        self.trt.calls.append(("clear_flag", flag))

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self.trt.calls.append(("memory", pool_size))

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Timings | None:
        damaged = serialized_timing_cache and not serialized_timing_cache.startswith(b"measured;")
        return None if damaged else Timings(serialized_timing_cache)

    def set_timing_cache(self, cache: Timings, ignore_mismatch: bool) -> bool:
        self.trt.calls.append(("timings", cache.content))
        self.timings = cache
        return True

    def get_timing_cache(self) -> Timings:
        return self.timings


class OnnxParser:
    trt: Any

    def __init__(self, network: Any, logger: Any) -> None:
        self.network = network

    def parse_from_file(self, model: str) -> bool:
        assert isinstance(model, str)
        if self.trt.fault == "parse":
            return False
        self.network.graph = onnx.load(model)
        return True

    num_errors = 2

    def get_error(self, index: int) -> Any:
        operator, name = (("Mystery", "node_7"), ("Riddle", "node_9"))[index]
        return types.SimpleNamespace(
            node_operator=lambda: operator, node_name=lambda: name, desc=lambda: "no importer registered for it"
        )


class Runtime:
    trt: Any

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
        self.trt.calls.append(("deserialize", len(serialized_engine)))
        if self.trt.fault == "deserialize" or not serialized_engine.startswith(_MAGIC):
            self.logger.log(Severity.ERROR, "magic tag does not match")
            return None
        head, graph = serialized_engine[len(_MAGIC) :].split(b"\n", 1)
        _, shapes = eval(head)
        return Engine(self.trt, onnx.load_from_string(graph), shapes)


class Engine:
    def __init__(self, trt: Any, model: onnx.ModelProto, shapes: dict[str, Any]) -> None:
        self.trt, self.model, self.shapes = trt, model, shapes
        self.ports = {port.name: port for port in (*model.graph.input, *model.graph.output)}
        self.num_io_tensors = len(self.ports)

    def get_tensor_name(self, index: int) -> str:
        return list(self.ports)[index]

    def get_tensor_mode(self, name: str) -> Any:
        inputs = [port.name for port in self.model.graph.input]
        return self.trt.TensorIOMode.INPUT if name in inputs else self.trt.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return _TYPES[self.ports[name].type.tensor_type.elem_type]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert profile_index == 0
        return list(self.shapes[name])

    def create_execution_context(self) -> Context:
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.trt = engine, engine.trt
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.session: Any = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.trt.calls.append(("shape", (name, shape)))
        if name in self.engine.shapes:
            low, _, high = self.engine.shapes[name]
            if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
                return False
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        sizes: dict[str, int] = {}
        for port in self.engine.model.graph.input:
            for d, size in zip(port.type.tensor_type.shape.dim, self.shapes[port.name], strict=True):
                sizes[d.dim_param] = size
        dims = self.engine.ports[name].type.tensor_type.shape.dim
        return tuple(sizes[d.dim_param] if d.dim_param else d.dim_value for d in dims)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.trt.calls.append(("address", (name, memory)))
        self.addresses[name] = memory
        return memory != 0

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle != 0, "not on the default stream"
        self.trt.calls.append(("execute", stream_handle))
        if self.trt.fault == "run":
            return False
        if self.trt.cuda.recordings:
            return self._record(stream_handle)
        inputs = {port.name: self._at(port.name) for port in self.engine.model.graph.input}
        results = self._evaluate(inputs)
        for port, result in zip(self.engine.model.graph.output, results, strict=True):
            self._at(port.name)[...] = result + (1 if self.trt.fault == "numbers" else 0)
        return True

    def _evaluate(self, inputs: dict[str, Any]) -> Any:
        if len(self.engine.model.graph.node) < _LARGE:
            return onnx.reference.ReferenceEvaluator(self.engine.model).run(None, inputs)
        import onnxruntime

        if self.session is None:
            content = self.engine.model.SerializeToString()
            self.session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return self.session.run(None, inputs)

    def _record(self, stream_handle: int) -> bool:
        """What is recorded runs when it is replayed."""
        self.trt.cuda.invalid = not self.trt.capture
        self.trt.cuda.under_way.replayed = partial(self.execute_async_v3, stream_handle)
        return bool(self.trt.capture)

    def _at(self, name: str) -> np.ndarray[Any, Any]:
        """The memory at a tensor's address."""
        shape = self.shapes.get(name) or self.get_tensor_shape(name)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(self.engine.ports[name].type.tensor_type.elem_type)
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_char * size).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)


def install(monkeypatch: Any, trt: types.ModuleType, *, name: str = "Fake GPU", capture: bool = True) -> fake_cuda.Cuda:
    """Put the fakes in place; tensors stay on the CPU. `capture` says whether engines can be recorded."""
    import sys

    import torch

    from fgfast.backends import tensorrt, tensorrt_engine

    trt.cuda, trt.capture = fake_cuda.install(monkeypatch, name=name), capture  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(tensorrt_engine, "gpu_of", lambda device: torch.device("cpu"))
    monkeypatch.setattr(tensorrt, "_ALIGNMENT", 1)
    return trt.cuda  # type: ignore[attr-defined,no-any-return]

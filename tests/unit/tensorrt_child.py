"""Loads NVIDIA's bindings of TensorRT over the stub, and prints what they are as JSON. Run by test_tensorrt_real.

Arguments: the bindings' shared object, and the stub. The process ends without its destructors, which would call what
the stub does not have.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import sys
from typing import Any

from unit.tensorrt_names import CLASSES, FUNCTIONS, INNER

_BUILDER, _NETWORK, _PLAIN, _ATTENTION_LAYER, _ATTENTION, _OTHER = range(6)


def main() -> None:
    file, stub = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("tensorrt", file)
    assert spec is not None and spec.loader is not None
    trt = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(trt)
    print(json.dumps({"classes": classes(trt), **on_objects(trt, ctypes.CDLL(stub))}), flush=True)
    os._exit(0)


def classes(trt: Any) -> dict[str, Any]:
    """Name -> attribute -> the names of parameters of each overload, or None for what cannot be called."""
    found: dict[str, Any] = {}
    for name, attributes in CLASSES.items():
        there = getattr(getattr(trt, INNER[name]) if name in INNER else trt, name, None)
        found[name] = {a: overloads(getattr(there, a)) for a in attributes if hasattr(there, a)}
    found[""] = {name: overloads(getattr(trt, name)) for name in FUNCTIONS if hasattr(trt, name)}
    return found


def overloads(method: Any) -> list[list[str]] | None:
    """The parameters' names in pybind11's docstring of a method, without self."""
    if not callable(method) or isinstance(method, type):
        return None
    lines = re.findall(rf"^(?:\d+\. )?{method.__name__}\((.*)\) -> ", method.__doc__ or "", re.MULTILINE)
    # The types may have commas of their own, which are not followed by "name: ".
    return [[name for name in re.findall(r"(?:^|, )(\w+): ", line) if name != "self"] for line in lines]


def on_objects(trt: Any, stub: Any) -> dict[str, Any]:
    """Build a network of two layers with fgfast's own code, as far as the stub goes."""
    from fgfast.backends import tensorrt_engine
    from fgfast.export.tensorrt_build import _allow_split_attention

    stub.stub_called.restype = ctypes.POINTER(ctypes.c_long)
    called = stub.stub_called()
    stub.stub_types(int(trt.LayerType.CONSTANT), int(trt.LayerType.ATTENTION_INPUT))
    builder = trt.Builder(tensorrt_engine.messages(trt))
    stub.stub_builders_answer(_NETWORK)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _ = network.num_layers
    assert called[0] == _NETWORK
    stub.stub_answer(_NETWORK, called[1], 2)
    layer = type(network.get_layer(1)).__name__
    _allow_split_attention(trt, network)
    split = (called[0], called[2] & 1) == (_ATTENTION, 1)
    stub.stub_builders_answer(_OTHER)
    try_arguments(trt, builder)
    return {"layer": layer, "split": split}


def try_arguments(trt: Any, builder: Any) -> None:
    """Call what takes values of Python with values of the types that fgfast passes; a wrong type is a TypeError."""
    profile = builder.create_optimization_profile()
    profile.set_shape("x", (1, 64), (4, 64), (8, 64))
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1 << 30)
    config.add_optimization_profile(profile)
    config.set_timing_cache(config.create_timing_cache(b""), False)
    context = trt.Runtime(trt.Logger()).deserialize_cuda_engine(b"engine").create_execution_context()
    context.set_input_shape("x", (1, 64))
    context.set_tensor_address("x", 1 << 40)
    context.execute_async_v3(1 << 40)
    assert tuple(trt.Dims((1, 64))) == (1, 64)


if __name__ == "__main__":
    main()

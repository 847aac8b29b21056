"""What fgfast uses of the package tensorrt: each class, its attributes, and the parameters of its methods.

The tests hold fgfast's sources and the fake to this table, and the table to NVIDIA's own bindings.
"""

from __future__ import annotations

from types import MappingProxyType

Parameters = tuple[str, ...]

# Class -> attribute -> names of a method's parameters; None for what is no method.
CLASSES: MappingProxyType[str, dict[str, Parameters | None]] = MappingProxyType(
    {
        "ILogger": {"log": ("severity", "msg"), "Severity": None},
        "Severity": {"INTERNAL_ERROR": None, "ERROR": None},
        "Builder": {
            "create_network": ("flags",),
            "create_builder_config": (),
            "create_optimization_profile": (),
            "build_serialized_network": ("network", "config"),
        },
        "INetworkDefinition": {"num_layers": None, "get_layer": ("index",)},
        "ILayer": {"type": None},
        "IAttentionInputLayer": {"type": None, "attention": None},
        "IAttention": {"decomposable": None},
        "IBuilderConfig": {
            "clear_flag": ("flag",),
            "set_memory_pool_limit": ("pool", "pool_size"),
            "add_optimization_profile": ("profile",),
            "create_timing_cache": ("serialized_timing_cache",),
            "set_timing_cache": ("cache", "ignore_mismatch"),
            "get_timing_cache": (),
        },
        "IOptimizationProfile": {"set_shape": ("input", "min", "opt", "max")},
        "ITimingCache": {"serialize": ()},
        "OnnxParser": {"parse_from_file": ("model",), "num_errors": None, "get_error": ("index",)},
        "ParserError": {"node_operator": (), "node_name": (), "desc": ()},
        "Runtime": {"deserialize_cuda_engine": ("serialized_engine",)},
        "ICudaEngine": {
            "num_io_tensors": None,
            "get_tensor_name": ("index",),
            "get_tensor_mode": ("name",),
            "get_tensor_dtype": ("name",),
            "get_tensor_profile_shape": ("name", "profile_index"),
            "create_execution_context": (),
        },
        "IExecutionContext": {
            "set_input_shape": ("name", "shape"),
            "get_tensor_shape": ("name",),
            "set_tensor_address": ("name", "memory"),
            "execute_async_v3": ("stream_handle",),
        },
        "LayerType": {"ATTENTION_INPUT": None, "CONSTANT": None},
        "DataType": dict.fromkeys(("UINT8", "INT64", "FLOAT", "HALF", "BF16", "BOOL")),
        "TensorIOMode": {"INPUT": None, "OUTPUT": None},
        "BuilderFlag": {"TF32": None},
        "MemoryPoolType": {"WORKSPACE": None},
        # Only read where the version is below 11.
        "NetworkDefinitionCreationFlag": {"STRONGLY_TYPED": None},
    }
)
FUNCTIONS: MappingProxyType[str, Parameters] = MappingProxyType({"init_libnvinfer_plugins": ("logger", "namespace")})
# Classes that are reached as attributes of another.
INNER = MappingProxyType({"Severity": "ILogger"})

# Source file -> expression -> the class of what it names.
OWNERS: MappingProxyType[str, dict[str, str]] = MappingProxyType(
    {
        "export/tensorrt_build.py": {
            "builder": "Builder",
            "network": "INetworkDefinition",
            "layer": "IAttentionInputLayer",
            "layer.attention": "IAttention",
            "config": "IBuilderConfig",
            "profile": "IOptimizationProfile",
            "timings": "ITimingCache",
            "parser": "OnnxParser",
            "error": "ParserError",
        },
        "backends/tensorrt.py": {
            "engine": "ICudaEngine",
            "self._engine": "ICudaEngine",
            "self._context": "IExecutionContext",
            "self._runtime": "Runtime",
            "modes": "TensorIOMode",
        },
        "backends/tensorrt_engine.py": {},
        "export/tensorrt.py": {},
    }
)
# Variables that hold what TensorRT returns, and of which no attribute of TensorRT's is used.
PLAIN = ("content", "engine_names", "kind", "kept", "found")
# Expressions that name the module itself.
MODULE = ("trt", "self._trt")
# Class of the fake -> the real one.
FAKES = MappingProxyType(
    {
        "Builder": "Builder",
        "Network": "INetworkDefinition",
        "Profile": "IOptimizationProfile",
        "Timings": "ITimingCache",
        "Config": "IBuilderConfig",
        "OnnxParser": "OnnxParser",
        "Runtime": "Runtime",
        "Engine": "ICudaEngine",
        "Context": "IExecutionContext",
    }
)

"""State dicts: read without executing code, checked key by key, converted for fast loading, or random.

torch and safetensors are imported inside functions, so that `fgfast models list` needs neither.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fgfast.errors import FgfastError, MissingExtraError, WeightsError
from fgfast.files import open_regular
from fgfast.models.files import digests, pickles
from fgfast.transfer import digest_of
from fgfast.writing import Target, remove, replacing_path

if TYPE_CHECKING:
    from torch import Tensor, nn

# Keys under which training programs store the weights: detectron2's checkpointer, PyTorch Lightning.
_WRAPPERS = ("model", "state_dict")
_DTYPES = ("bfloat16", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
# How many times the size of its file a checkpoint may take: tensors that share memory are stored once.
_MOST_EXPANSION, _SLACK = 4, 1 << 20
# Bytes of a safetensors header: SAM's has 0.1 MB.
_MOST_HEADER = 16 << 20
_SHOWN = 5


def load_state(path: Path) -> dict[str, Tensor]:
    """Return a checkpoint's tensors on the CPU, memory-mapped where the format allows it.

    No code in the file is executed: it is looked through (fgfast.models.files.pickles), then read by torch's
    weights-only unpickler, or by safetensors. Its tensors take at most four times its size.

    Raises:
        WeightsError: the file is damaged, is not a checkpoint, or contains anything but numbers.
    """
    if path.suffix == ".safetensors":
        state: Mapping[Any, object] = _load_safetensors(path)
    else:
        state = _table(path, _load_pickled(path))
    most = _MOST_EXPANSION * path.stat().st_size + _SLACK
    tensors = {key: _tensor(path, key, value) for key, value in state.items()}
    taken = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if taken > most:
        raise WeightsError(
            path, f"its tensors would take {taken:,} bytes, far more than the file has; it was not loaded"
        )
    return tensors


def _load_pickled(path: Path) -> object:
    with _errors_of(path):
        import torch

        zipped = pickles.look_through(path)
        with torch.serialization.safe_globals(pickles.numpy_globals()):
            # Files from before torch 1.6 are not zip archives and cannot be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def _table(path: Path, content: object) -> dict[str, object]:
    """Return the table of weights in what a training program stored."""
    # Not by methods of the table: a file can set them.
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(inside := dict.get(content, wrapper), dict):
            content = inside
            break
    if not isinstance(content, dict) or not dict.__len__(content):
        raise WeightsError(path, f"contains a {type(content).__name__} where a table of weights was expected")
    if odd := [key for key in dict.keys(content) if type(key) is not str]:
        raise WeightsError(path, f"names a weight by a {type(odd[0]).__name__} where a text was expected")
    return dict(dict.items(content))


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    with _errors_of(path):
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            with open_regular(path) as file:
                start = file.read(8)
            if len(start) == 8 and int.from_bytes(start, "little") > _MOST_HEADER:
                raise WeightsError(path, "is not a complete safetensors file (its header is too long)")
            return dict(load_file(path, device="cpu"))
        except SafetensorError as error:
            raise WeightsError(
                path, f"is not a complete safetensors file ({error}). Remove it and recreate it."
            ) from error


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Convert exceptions of reading a file to MissingExtraError or WeightsError."""
    try:
        yield
    except FgfastError:
        raise
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", "models", f"reading {path.name}") from error
    except pickles.ForeignError as error:
        raise WeightsError(path, f"{error}; it was not loaded. Use a file that contains only numbers.") from error
    except FileNotFoundError:
        raise WeightsError(path, "there is no such file") from None
    # Whatever a library makes of a file that is none: it raises TypeError, IndexError, struct.error, ... as well.
    except Exception as error:
        first = (str(error) or type(error).__name__).partition("\n")[0]
        raise WeightsError(path, f"is damaged or not a checkpoint ({first}). Remove it and fetch it again.") from error


def _tensor(path: Path, key: str, value: object) -> Tensor:
    import torch

    if isinstance(value, pickles.PickledArray) and value.array is not None:
        value = torch.from_numpy(np.array(value.array))
    kind = f"a {type(value).__name__}"
    if isinstance(value, torch.Tensor):
        plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_nested
        if plain and type(value) in (torch.Tensor, torch.nn.Parameter) and str(value.dtype)[6:] in _DTYPES:
            return value.detach()
        kind = f"a tensor of {value.dtype} in {value.layout} on {value.device}"
    raise WeightsError(path, f"{key} is {kind}; a table of numeric weights was expected")


def convert(checkpoint: Path) -> Path:
    """Write the safetensors copy of a checkpoint beside it and remove copies of earlier checkpoints."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    sha256 = digests.recorded(checkpoint) or digest_of(checkpoint)
    tensors, seen = {}, set()
    for key, value in load_state(checkpoint).items():
        shared = value.untyped_storage().data_ptr() in seen  # the format does not allow shared storage
        seen.add(value.untyped_storage().data_ptr())
        tensors[key] = value.clone() if shared else value.contiguous()
    copy = digests.copy_of(checkpoint, sha256)
    with replacing_path(Target.file(copy), sync=True) as part:
        try:
            save_file(tensors, part, {"format": "pt", "sha256_of_checkpoint": sha256})
        except SafetensorError as error:  # of a full disk, among others
            raise OSError(str(error)) from error
    for old in checkpoint.parent.glob(f"{checkpoint.stem}.*.safetensors*"):
        if not old.name.startswith(copy.name):
            remove(Target.file(old))
    digests.current(copy)
    return copy


def check_state(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], ignored: str = "", source: object = "the weights"
) -> dict[str, Tensor]:
    """Return the state without ignored keys, after checking that all other keys and shapes are the model's.

    Args:
        state: from `load_state`.
        wanted: the model's own state; only its keys and shapes are read.
        ignored: regular expression of keys that a file may contain and the model does not use.
        source: of the state, for the message.

    Raises:
        WeightsError: the message names the first differences and the kind of checkpoint that it seems to be.
    """
    used = {key: value for key, value in state.items() if not re.fullmatch(ignored, key)}
    problems = [f"{key} is missing" for key in wanted if key not in used]
    problems += [f"{key} is unknown" for key in used if key not in wanted]
    problems += [
        f"{key} is {tuple(value.shape)}, not {tuple(wanted[key].shape)}"
        for key, value in used.items()
        if key in wanted and value.shape != wanted[key].shape
    ]
    if problems:
        more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise WeightsError(
            str(source), f"of another model: {'; '.join(problems[:_SHOWN])}{more}. It looks like {looks_like(state)}."
        )
    return used


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Return the keys of floating-point tensors that hold NaN or infinite values."""
    return [key for key, x in state.items() if x.is_floating_point() and not x.isfinite().all()]


def looks_like(state: Mapping[str, Tensor]) -> str:
    """Return the kind of checkpoint that a state seems to be, for a message."""
    if "image_encoder.pos_embed" in state:
        width = state["image_encoder.pos_embed"].shape[-1]
        name = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}.get(width, f"of {width} channels")
        return f"a SAM checkpoint, {name}"
    kinds = {
        "module.": "a checkpoint saved from DataParallel: save its module's state_dict instead",
        "backbone.bottom_up.": "a checkpoint of detectron2: a Detic of another size, or another detector",
        "vision_encoder.": "a SAM of transformers; the original files of segment-anything are needed",
        "model.backbone.conv_encoder.": "a Grounding DINO of transformers",
        "text_model.": "a CLIP of transformers",
        "image_encoder.": "a SAM checkpoint, or part of one",
    }
    for prefix, kind in kinds.items():
        if any(key.startswith(prefix) for key in state):
            return kind
    return f"a table of {len(state)} tensors that starts with {', '.join(list(state)[:3])}"


# Statistics of trained weights, so that a random model behaves like a trained one: (key, mean, deviation, whether the
# deviation is divided by the square root of the fan-in). The first match applies.
_RULES: tuple[tuple[str, float, float, bool], ...] = (
    # SAM: the frequencies of the position code are N(0, 1) (PositionEmbeddingRandom); mask logits several units wide.
    (r"positional_encoding_gaussian_matrix$", 0.0, 1.0, False),
    (r"output_hypernetworks_mlps\.\d\.layers\.2\.weight$", 0.0, 6.0, True),
    (r"(pos_embed|_embed\.weight|_embeddings\.\d\.weight|_tokens?\.weight)$", 0.0, 0.5, False),
    (r"rel_pos_[hw]$|relative_position_bias_table$", 0.0, 0.2, False),
    # CenterNet: few cells are objects (its prior is 0.01, bias -4.6), distances are some strides.
    (r"agn_hm\.bias$", -4.6, 0.1, False),
    (r"agn_hm\.weight$", 0.0, 4.0, True),
    (r"centernet_head\.bbox_pred\.bias$", 6.0, 0.5, False),
    (r"scales\.\d+\.scale$", 1.0, 0.1, False),
    (r"running_mean$", 0.0, 0.1, False),
    (r"\.bias$", 0.0, 0.1, False),
)


def random_state(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Return random weights for trials and tests: signals stay of order one, results have no meaning.

    Each tensor depends only on the seed, its key and its shape, not on the order or number of the others. Integer
    buffers are omitted: they follow from the architecture.

    Args:
        model: its keys and shapes are used; may be on the meta device. It is not changed.
        seed: of the random numbers.

    Returns:
        key -> float32 tensor.
    """
    import torch

    transposed = {
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.ConvTranspose2d)
    }
    state = {}
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            shape = tuple(value.shape)
            # A transposed convolution is (in, out, h, w); with a stride of its own size each output has `in` inputs.
            fan_in = shape[0] if key in transposed else int(np.prod(shape[1:]))
            state[key] = torch.from_numpy(_draws(key, shape, seed, fan_in))
    return state


def _draws(key: str, shape: tuple[int, ...], seed: int, fan_in: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    digest = hashlib.sha256(f"{seed} {key} {shape}".encode()).digest()
    numbers = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
    values = np.asarray(numbers.standard_normal(shape, dtype=np.float32), dtype=np.float32)
    if key.endswith("running_var"):
        return np.asarray(1 + np.abs(values) / 10, dtype=np.float32)
    mean, deviation, scaled = next(
        (rule[1:] for rule in _RULES if re.search(rule[0], key)),
        (1.0, 0.1, False) if len(shape) <= 1 else (0.0, 1.0, True),  # of a norm; of a layer
    )
    values *= np.float32(deviation / (fan_in**0.5 if scaled else 1.0))
    values += np.float32(mean)
    return values

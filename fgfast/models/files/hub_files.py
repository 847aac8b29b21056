"""The small files of a folder of the Hugging Face hub, before transformers reads them: data, and little of it.

Only the weights have published digests. transformers does more for a configuration than reading it: it can fetch a
model that another folder names, import code from the hub, or build a network of any size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fgfast.errors import WeightsError
from fgfast.files import read_regular

_MOST_BYTES = 32 << 20  # tokenizer.json of CLIP has 2.2 MB
_LARGEST, _MOST_LAYERS, _DEEPEST, _UNLIMITED = 1 << 20, 256, 40, 10**30
_CONFIGURATIONS = ("config.json", "generation_config.json", "preprocessor_config.json", "tokenizer_config.json")
_OTHERS = ("tokenizer.json", "vocab.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "merges.txt")
# What makes transformers load something else than the files of the folder.
_FORBIDDEN = re.compile(
    "auto_map|quantization_config|compression_config|_?attn_implementation.*|_?experts_implementation.*|backbone"
    "|use_timm_backbone|use_pretrained_backbone|backbone_kwargs|custom_pipelines|kernel_config"
)
_TYPES = (
    *("grounding-dino", "swin", "bert", "clip", "clip_text_model", "clip_vision_model"),
    *("dinov2", "dinov2_with_registers"),
)
_HARMLESS = ("eager", "sdpa")


def check(folder: Path) -> None:
    """Raise unless the files beside a model's weights are small, and configure nothing but the model.

    Raises:
        WeightsError: the message names the file and what is wrong with it.
    """
    # An adapter changes the model, and names the model that it changes.
    if (adapter := folder / "adapter_config.json").exists():
        raise WeightsError(adapter, "changes the model when it is loaded; remove it")
    for name in (*_CONFIGURATIONS, *_OTHERS):
        file = folder / name
        if not file.exists():
            continue
        try:
            data = read_regular(file, _MOST_BYTES)
            content = json.loads(data) if name.endswith(".json") else {}
            problem = next(_problems(content), "") if name in _CONFIGURATIONS else ""
        except (OSError, ValueError, RecursionError) as error:
            problem = f"cannot be read ({getattr(error, 'strerror', None) or error or type(error).__name__})"
        if problem:
            raise WeightsError(file, f"{problem}; remove it and fetch the model again (fgfast models pull)")


def _problems(content: Any, depth: int = 0, layers: bool = False) -> Iterator[str]:
    """Yield what a configuration must not hold."""
    if depth > _DEEPEST:
        yield "is nested too deep"
        return
    if isinstance(content, dict):
        for key, value in content.items():
            if value and _FORBIDDEN.fullmatch(key) and value not in _HARMLESS:
                yield f"sets {key}, which makes transformers load something else"
            elif key == "model_type" and value not in _TYPES:
                yield f"is of the type {str(value)[:80]!r}; {', '.join(_TYPES)} are known"
            else:
                yield from _problems(value, depth + 1, "layers" in key or "depths" in key)
    elif isinstance(content, list):
        for value in content:
            yield from _problems(value, depth + 1, layers)
    # A tokenizer without a limit of its length has 10**30.
    elif isinstance(content, int) and content < _UNLIMITED and abs(content) > (_MOST_LAYERS if layers else _LARGEST):
        yield f"has the number {str(content)[:40]}, more than a model here has"

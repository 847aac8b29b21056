"""The small files beside the weights of a folder of the hub: what they may say."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fgfast.errors import WeightsError
from fgfast.models.files import hub_files

PLAIN = {
    "model_type": "grounding-dino",
    "backbone": None,
    "backbone_kwargs": {},
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "encoder_layers": 6,
    "backbone_config": {"model_type": "swin", "depths": [2, 2, 18, 2], "hidden_size": 768},
    "text_config": {"model_type": "bert", "vocab_size": 30522, "layer_norm_eps": 1e-12},
}


def test_a_plain_configuration_passes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PLAIN))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30 + 19884624838656}))
    (tmp_path / "merges.txt").write_text("a b")
    hub_files.check(tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"auto_map": {"AutoModel": "owner/repo--code.Model"}}, "auto_map"),
        ({"quantization_config": {"quant_method": "x"}}, "quantization_config"),
        ({"text_config": {"_attn_implementation": "owner/kernel"}}, "_attn_implementation"),
        ({"backbone_config": {"attn_implementation": {"": "owner/kernel"}}}, "attn_implementation"),
        ({"backbone": "owner/model", "use_pretrained_backbone": True}, "backbone"),
        ({"backbone_config": {"model_type": "timm_backbone"}}, "timm_backbone"),
        ({"model_type": ["bert"]}, "of the type"),
        ({"encoder_layers": 10**9}, "1000000000"),
        ({"backbone_config": {"depths": [2, 2, 10**6, 2]}}, "1000000"),
        ({"num_queries": 10**12}, "1000000000000"),
        ({"num_queries": -(10**12)}, "-1000000000000"),
        ({"a": json.loads("[" * 60 + "]" * 60)}, "nested"),
    ],
)
def test_what_loads_something_else_is_refused(tmp_path: Path, change: dict[str, object], problem: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**PLAIN, **change}))
    with pytest.raises(WeightsError, match=rf"config\.json: .*{problem}"):
        hub_files.check(tmp_path)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{", b"\xff\xfe", b" " * (hub_files._MOST_BYTES + 1)])
def test_what_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"tokenizer\.json: cannot be read"):
        hub_files.check(tmp_path)


def test_adapters_and_pipes_are_refused(tmp_path: Path) -> None:
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "vocab.txt")
        with pytest.raises(WeightsError, match=r"vocab\.txt: cannot be read"):
            hub_files.check(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(WeightsError, match="changes the model"):
        hub_files.check(tmp_path)

"""DINOv2's patch features: what is refused before anything is loaded, and a tiny network with random weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fgfast.errors import MissingExtraError, UsageError, WeightsError
from fgfast.models import dinov2
from fgfast.records import Size

for package in ("torch", "transformers"):
    pytest.importorskip(package)


def test_without_its_files_the_way_to_them_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for model in ("facebook/dinov2-small", "../hub", "a/../b", "/nowhere"):
        with pytest.raises(UsageError, match="hf download facebook/dinov2-small"):
            dinov2.find(model)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"lacks config\.json, model\.safetensors"):
        dinov2.find(str(tmp_path / "empty"))


def test_a_fetched_repository_is_found_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    top = tmp_path / "models--facebook--dinov2-small"
    folder = top / "snapshots" / "ab12"
    folder.mkdir(parents=True)
    (top / "refs").mkdir()
    (folder / "config.json").write_text('{"model_type": "dinov2"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    (top / "refs/main").write_text("../..")
    with pytest.raises(UsageError, match="hf download"):
        dinov2.find("facebook/dinov2-small")
    (top / "refs/main").write_text("ab12\n")
    assert dinov2.find("facebook/dinov2-small") == folder
    first = dinov2.fingerprint(folder)
    (folder / "model.safetensors").write_bytes(b"others")
    assert dinov2.fingerprint(folder)["weights"] != first["weights"] and "torch" in first


def test_a_configuration_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2", "auto_map": {"AutoModel": "x.Y"}}))
    with pytest.raises(WeightsError, match="auto_map"):
        dinov2.find(str(tmp_path))


def test_without_its_packages_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="extra 'parts'"):
        dinov2.find(str(tmp_path))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of two layers with random weights and four registers, as `save_pretrained` leaves it."""
    import torch

    from fgfast.studies import torchvision_shim

    torchvision_shim.declare()
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    folder = tmp_path_factory.mktemp("dinov2")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    config = Dinov2WithRegistersConfig(**shape, image_size=56, patch_size=14, num_register_tokens=4)
    Dinov2WithRegistersModel(config).save_pretrained(folder)
    return folder


@pytest.mark.full  # importing transformers takes ten seconds
def test_features_are_the_patch_tokens_of_the_network(tiny: Path) -> None:
    import torch
    from transformers import Dinov2WithRegistersModel

    features = dinov2.PatchFeatures(dinov2.find(str(tiny)))
    assert features.grid(Size(60, 120)) == (18, 37)
    pixels = np.random.default_rng(0).integers(0, 256, (18 * 14, 37 * 14, 3), np.uint8)
    found = features(pixels)
    assert found.shape == (18, 37, 32) and found.dtype == np.float32
    values = (pixels / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    inputs = torch.from_numpy(values.transpose(2, 0, 1)[None].astype(np.float32))
    with torch.inference_mode():
        tokens = Dinov2WithRegistersModel.from_pretrained(tiny).eval()(inputs).last_hidden_state[0, 5:].numpy()
    wanted = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    np.testing.assert_allclose(found.reshape(-1, 32), wanted, atol=1e-5)
    assert features(np.zeros((1, 300, 3), np.uint8)).shape == (1, 37, 32)


@pytest.mark.full
def test_what_is_no_dinov2_is_refused(tiny: Path, tmp_path: Path) -> None:
    import torch

    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(WeightsError, match=r"lacks .* weights"):
        dinov2.PatchFeatures(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "clip"}))
    with pytest.raises(WeightsError, match="dinov2"):
        dinov2.PatchFeatures(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        dinov2.PatchFeatures(tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no GPU"):
            dinov2.PatchFeatures(tiny, "cuda")

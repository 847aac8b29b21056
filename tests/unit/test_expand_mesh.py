"""The kind `mesh`: inputs of models, GLB that other programs read, views with cameras."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expanding import drawn, request_for, subject

from fgfast.errors import MissingExtraError, UsageError
from fgfast.expand.kind import Product
from fgfast.expand.kinds import mesh
from fgfast.records import Bool, UInt8

trimesh = pytest.importorskip("trimesh")
Content = dict[str, Any]


def made(pixels: UInt8, bits: Bool, folder: str = "", **options: Any) -> Product:
    step = pickle.loads(pickle.dumps(mesh.Step(mesh.Options(**options), folder)))
    found = step(subject(pixels, bits, "mesh"))
    assert isinstance(found, Product)
    return found


def read_back(data: bytes) -> Any:
    from io import BytesIO

    return trimesh.load(BytesIO(data), file_type="glb", process=False, force="mesh")


def test_triposr_s_input_is_grey_and_padded() -> None:
    pixels, bits = drawn(60, 80)
    image, (x, y) = mesh.model_input(pixels, bits, "triposr")
    rows, columns = (np.flatnonzero(bits.any(axis=axis)) for axis in (1, 0))
    longer = max(len(rows), len(columns))
    assert image.shape == (int(longer / 0.85), int(longer / 0.85), 3)
    inside = bits[y : y + image.shape[0], x : x + image.shape[1]]
    assert x >= 0 and y >= 0 and inside.sum() == bits.sum()
    assert np.array_equal(image[inside], pixels[bits]) and (image[~inside] == 127).all()
    # In the middle, to the pixel.
    left, right = columns[0] - x, x + image.shape[1] - 1 - columns[-1]
    above, below = rows[0] - y, y + image.shape[0] - 1 - rows[-1]
    assert abs(left - right) <= 2 and abs(above - below) <= 2


def test_unique3d_s_input_is_a_tight_square() -> None:
    pixels, bits = drawn(60, 80)
    bits[:, 50:] = False
    image, _ = mesh.model_input(pixels, bits, "unique3d")
    shape = [len(np.flatnonzero(bits.any(axis=axis))) for axis in (0, 1)]
    assert image.shape == (max(shape), max(shape), 4)
    alpha = image[..., 3] > 0
    assert alpha.sum() == bits.sum() and np.array_equal(image[alpha][:, :3], pixels[bits]) and not image[~alpha].any()


@pytest.mark.parametrize("name", mesh.INPUTS)
def test_inputs_at_the_border_are_not_stretched(name: str) -> None:
    pixels, _ = drawn(50, 90)
    bits = np.zeros((50, 90), np.bool_)
    bits[:, :7] = True
    image, (x, y) = mesh.model_input(pixels, bits, name)
    assert image.shape[0] == image.shape[1] >= 50
    assert np.array_equal(image[-y : 50 - y, -x : 7 - x, :3], pixels[:, :7])


@pytest.mark.parametrize("inputs", mesh.INPUTS)
def test_the_background_leaves_no_trace(inputs: str) -> None:
    pixels, bits = drawn()
    other = pixels.copy()
    other[~bits] = (255, 0, 255)
    one, two = (made(p, bits, inputs=inputs, views=2, view_size=32) for p in (pixels, other))
    assert np.array_equal(one.images["inputs"], two.images["inputs"])
    assert one.files == two.files and one.several == two.several and one.rows == two.rows


def several_parts() -> Bool:
    bits = np.zeros((40, 50), np.bool_)
    bits[5:20, 5:20], bits[20:30, 20:30], bits[33:, 40:] = True, True, True  # two touch at a corner
    bits[10:13, 10:13] = False
    return bits


CASES = {
    "ellipse": drawn()[1],
    "all": np.ones((30, 44), np.bool_),
    "one pixel": np.eye(1, 20, 3, dtype=np.bool_).repeat(1, axis=0),
    "line": np.eye(40, dtype=np.bool_),
    "parts": several_parts(),
}


@pytest.mark.parametrize("name", CASES)
def test_the_relief_is_read_back_as_a_solid(name: str) -> None:
    bits = CASES[name]
    pixels = np.random.default_rng(1).integers(0, 256, (*bits.shape, 3), dtype=np.uint8)
    product = made(pixels, bits)
    (row,) = product.rows["mesh"]
    assert list(row) == list(mesh.COLUMNS)
    found = read_back(product.files["relief"])
    assert found.is_watertight and found.is_winding_consistent and found.volume > 0
    assert (len(found.vertices), len(found.faces)) == (row["vertices"], row["faces"]) and row["closed"]
    low, high = found.bounds
    assert high[2] - low[2] == pytest.approx(row["thickness"], abs=1e-6)
    assert max(high[0] - low[0], high[1] - low[1]) == pytest.approx(1, abs=1e-6)
    rows, columns = (np.flatnonzero(bits.any(axis=axis)) for axis in (1, 0))
    texture = np.asarray(found.visual.material.baseColorTexture.convert("RGB"))
    box = np.ix_(rows, columns)
    assert texture.shape[:2] == (len(rows), len(columns)) or name == "parts"
    if name != "parts":
        assert np.array_equal(texture[bits[box]], pixels[box][bits[box]])
    assert found.visual.uv.min() >= 0 and found.visual.uv.max() <= 1


def test_parts_are_counted() -> None:
    bits = several_parts()
    assert made(np.zeros((*bits.shape, 3), np.uint8), bits).rows["mesh"][0]["parts"] == 3


def test_an_empty_mask_is_skipped() -> None:
    assert "empty" in made(np.zeros((9, 8, 3), np.uint8), np.zeros((9, 8), np.bool_)).skipped


def test_large_subjects_have_smaller_textures() -> None:
    bits = np.ones((30, 1500), np.bool_)
    product = made(np.full((30, 1500, 3), 77, np.uint8), bits, cells=64)
    assert read_back(product.files["relief"]).visual.material.baseColorTexture.size == (1024, 20)


def test_the_upper_left_of_the_image_is_there_in_the_texture() -> None:
    pixels = np.zeros((20, 20, 3), np.uint8)
    pixels[:10, :10] = (255, 0, 0)
    found = read_back(made(pixels, np.ones((20, 20), np.bool_)).files["relief"])
    colours = found.visual.to_color().vertex_colors[:, :3]
    red = colours[:, 0] > 128
    x, y, _ = found.vertices.T
    assert np.array_equal(red[(abs(x) > 0.1) & (abs(y) > 0.1)], ((x < 0) & (y > 0))[(abs(x) > 0.1) & (abs(y) > 0.1)])


def test_views_and_their_cameras() -> None:
    from io import BytesIO

    from PIL import Image

    pixels, bits = drawn()
    product = made(pixels, bits, views=3, view_size=48, elevation=20.0)
    names = sorted(name for folder, name in product.several if folder == "views")
    assert names == ["000.png", "001.png", "002.png", "transforms.json"]
    cameras = json.loads(product.several["views", "transforms.json"])
    assert [frame["file_path"] for frame in cameras["frames"]] == names[:3]
    assert cameras["w"] == 48 and cameras["fl_x"] == pytest.approx(24 / math.tan(cameras["camera_angle_x"] / 2))
    # Points of the GLB, seen through the cameras of the file, lie where the views show something.
    points = np.asarray(read_back(product.files["relief"]).vertices)
    for frame in cameras["frames"]:
        pose = np.array(frame["transform_matrix"])
        here = (points - pose[:3, 3]) @ pose[:3, :3]
        x = cameras["cx"] + cameras["fl_x"] * here[:, 0] / -here[:, 2]
        y = cameras["cy"] - cameras["fl_y"] * here[:, 1] / -here[:, 2]
        view = np.asarray(Image.open(BytesIO(product.several["views", frame["file_path"]])))
        assert view.shape == (48, 48, 4)
        seen = np.argwhere(view[..., 3] > 0)
        assert abs(seen[:, 1].min() - x.min()) < 1.5 and abs(seen[:, 1].max() + 1 - x.max()) < 1.5
        assert abs(seen[:, 0].min() - y.min()) < 1.5 and abs(seen[:, 0].max() + 1 - y.max()) < 1.5


def test_the_front_view_is_the_subject() -> None:
    pixels, bits = drawn(120, 160)
    product = made(pixels, bits, views=1, view_size=200)
    from io import BytesIO

    from PIL import Image

    view = np.asarray(Image.open(BytesIO(product.several["views", "000.png"])))
    rows, columns = (np.flatnonzero((view[..., 3] > 127).any(axis=axis)) for axis in (1, 0))
    shown = view[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    box = np.ix_(*(np.flatnonzero(bits.any(axis=axis)) for axis in (1, 0)))
    again = Image.fromarray(bits[box]).resize((shown.shape[1], shown.shape[0]), Image.Resampling.NEAREST)
    one, other = shown[..., 3] > 127, np.asarray(again)
    assert (one & other).sum() / (one | other).sum() > 0.95


def test_the_same_bytes_again() -> None:
    pixels, bits = drawn()
    found = [made(pixels, bits, views=1, view_size=32).files["relief"] for _ in range(2)]
    assert hashlib.sha256(found[0]).digest() == hashlib.sha256(found[1]).digest()


VALIDATE = """
const validator = require("gltf-validator");
const data = require("fs").readFileSync(0);
validator.validateBytes(new Uint8Array(data)).then((report) => console.log(JSON.stringify(report.issues)));
"""


@pytest.mark.parametrize("name", CASES)
def test_khronos_validator_finds_no_error(name: str) -> None:
    """With `npm install -g gltf-validator`; NODE_PATH says where else it is."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        pytest.skip("there is no node to run Khronos' gltf-validator")
    import os

    top = os.environ.get("NODE_PATH", "")
    if not top and npm:
        top = subprocess.run([npm, "root", "-g"], capture_output=True, text=True, check=False).stdout.strip()
    if not (Path(top) / "gltf-validator").is_dir():
        pytest.skip("Khronos' gltf-validator is not installed: npm install -g gltf-validator, or set NODE_PATH")
    bits = CASES[name]
    data = made(np.zeros((*bits.shape, 3), np.uint8), bits).files["relief"]
    ran = subprocess.run([node, "-e", VALIDATE], input=data, capture_output=True, check=True, env={"NODE_PATH": top})
    issues = json.loads(ran.stdout)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues


def test_a_missing_model_and_a_missing_package_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fgfast.models import depth

    with pytest.raises(UsageError, match="hf download"):
        depth.find(str(tmp_path / "nothing"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="mesh"):
        depth.find("owner/name")


def test_the_plan_says_what_it_makes(tmp_path: Path) -> None:
    from small_review import small_run

    out, _ = small_run(tmp_path)
    with request_for(out, "mesh") as request:
        bare = mesh.plan(request, mesh.Options())
        assert (bare.sets, bare.transparent, bare.folders) == (("inputs",), False, ())
        assert dict(bare.files) == {"relief": ".glb"}
        other = mesh.plan(request, mesh.Options(inputs="unique3d", views=4))
        assert other.transparent and other.folders == ("views",)

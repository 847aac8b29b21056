"""The kind `parts`: crops, maps and rows from annotated parts and from clusters, and what they measure."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expanding import planned as expanded
from layouts import SHARED, cub, make_image, text
from PIL import Image as pillow

import fgfast
from fgfast import ops
from fgfast.config import Settings
from fgfast.errors import SampleError, UsageError
from fgfast.expand.kind import Ending, Planned, Product, Request, Subject
from fgfast.expand.kinds.parts import Options, plan
from fgfast.expand.parts.clustered import ANNOTATED
from fgfast.expand.parts.fitting import FitImage, digest_of
from fgfast.expand.parts.measuring import Gathered, Measuring
from fgfast.expand.parts.shown import file_name, palette
from fgfast.expand.run import run as expand
from fgfast.expand.run_source import Outcomes
from fgfast.pipeline.twin import Twin
from fgfast.records import Size
from fgfast.writing import Target


def bird(place: tuple[float, float] = (40, 30), size: tuple[int, int] = (60, 80)) -> tuple[np.ndarray, np.ndarray]:
    """A red disc (body) with a blue one (head) on its right, on green: pixels and mask."""
    y, x = np.ogrid[: size[0], : size[1]]
    body = (x - place[0]) ** 2 + (y - place[1]) ** 2 <= 15**2
    head = (x - place[0] - 18) ** 2 + (y - place[1] + 8) ** 2 <= 7**2
    pixels = np.full((*size, 3), (30, 140, 50), np.uint8)
    pixels[body], pixels[head] = (200, 40, 40), (40, 60, 220)
    return pixels, body | head


def birds(folder: Path, annotated: bool = True) -> Path:
    """Twelve drawn birds in CUB's layout, half of them to train, with the points of body and head."""
    root = folder / "CUB_200_2011"
    names, parts, boxes = [], [], []
    for number in range(1, 13):
        at = (26 + 2.0 * number % 17, 24 + 3.0 * number % 13)
        name = f"001.Auk/Auk_{number:04d}.png"
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pillow.fromarray(bird(at)[0]).save(path)
        names.append(f"{number} {name}")
        boxes.append(f"{number} {at[0] - 15} {at[1] - 15} 41 31")
        parts += [f"{number} 1 {at[0]} {at[1]} 1", f"{number} 2 {at[0] + 18} {at[1] - 8} {int(number != 4)}"]
    text(root / "images.txt", *names)
    text(root / "image_class_labels.txt", *(f"{number} 1" for number in range(1, 13)))
    text(root / "train_test_split.txt", *(f"{number} {number % 2}" for number in range(1, 13)))
    text(root / "classes.txt", "1 001.Auk")
    text(root / "bounding_boxes.txt", *boxes)
    if annotated:
        text(root / "parts/part_locs.txt", *parts)
        text(root / "parts/parts.txt", "1 body", "2 head")
    return root


def converted(root: Path, name: str = "cub") -> Path:
    out = root.parent / "out"
    fgfast.convert(name, out, root=root, settings=Settings(segmenter="grabcut", format="png"), in_process=True)
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(birds(tmp_path_factory.mktemp("parts")))


def request_for(twin: Twin, seed: int = 0, leave_out: tuple[str, ...] = ()) -> Request:
    keys = tuple(o.key for o in twin.entries(("done", "flagged")) if o.key not in leave_out)
    return Request(twin, "parts", seed, keys, keys, Outcomes(twin.output.ledger_path))


def given_of(planned: Planned, key: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(json.dumps(dict(planned.given(key))))
    return found


def products(twin: Twin, planned: Planned, seed: int = 0) -> Iterator[tuple[str, str, Product]]:
    """Key, split and product of each sample, by a step as another process gets it."""
    step = pickle.loads(pickle.dumps(planned.step))
    for outcome in twin.entries(("done", "flagged")):
        assert outcome.rle is not None and outcome.size is not None
        sample, bits = twin.sample(outcome.key), ops.rle_decode(outcome.rle, *outcome.size)
        names = (seed, "parts", outcome.key)
        subject = Subject(sample, twin.image(outcome.key).pixels, bits, given_of(planned, outcome.key), names)
        yield outcome.key, sample.split, step(subject)


def image_of(data: bytes) -> np.ndarray:
    return np.asarray(pillow.open(io.BytesIO(data)))


def check(planned: Planned, product: Product) -> None:
    """A product names what its plan announced, and nothing else."""
    assert set(product.files) == set(planned.files)
    assert {folder for folder, _ in product.several} <= set(planned.folders)
    columns = {table.name: set(table.columns) for table in planned.tables}
    assert set(product.rows) == set(columns)
    assert all(set(row) == columns[name] for name, rows in product.rows.items() for row in rows)


def test_annotated_parts_have_crops_and_heat_maps(run: Path) -> None:
    with Twin(run) as twin:
        planned = plan(request_for(twin), Options())
        assert "2 that the data set names" in planned.reasons[0]
        found = {key: product for key, _, product in products(twin, planned)}
    for key, product in found.items():
        check(planned, product)
        rows = product.rows["parts"]
        assert [row["name"] for row in rows] == ["body", "head"]
        assert all(row["in_mask"] for row in rows if row["visible"]) and not product.flags
        assert rows[1]["visible"] is (not key.endswith("_0004.png"))
        maps = image_of(product.files["heat_maps"]).reshape(2, 48, 64)
        row, column = np.unravel_index(int(maps[0].argmax()), (48, 64))
        assert abs(column * 80 / 64 - rows[0]["x"]) <= 1.3 and abs(row * 60 / 48 - rows[0]["y"]) <= 1.3
        assert bool(maps[1].any()) is rows[1]["visible"]
        crop = image_of(product.several["crops", "01_body.png"])
        side = rows[0]["crop_x1"] - rows[0]["crop_x0"]
        assert crop.shape == (side, side, 3) and side == round(0.3 * 41) == rows[0]["crop_y1"] - rows[0]["crop_y0"]
        assert (crop == (200, 40, 40)).all(axis=2).mean() > 0.95
    hidden = found["images/001.Auk/Auk_0004.png"]
    assert set(hidden.several) == {("crops", "01_body.png")}
    assert hidden.rows["parts"][1] | {"x": None, "crop_x0": None} == hidden.rows["parts"][1]


def subject_of(pixels: np.ndarray, bits: np.ndarray, points: list[list[float]], key: str = "a.png") -> Subject:
    sample = fgfast.records.Sample(key, Path(key))
    return Subject(sample, pixels, bits, {"points": points, "fit": "", "box": None}, (0, "parts", key))


def test_points_outside_the_mask_or_the_image_are_flagged(run: Path) -> None:
    with Twin(run) as twin:
        step = plan(request_for(twin), Options(map_side=20)).step
    pixels, bits = bird()
    product = step(subject_of(pixels, bits, [[2, 2, 1], [-5, 90, 1]]))
    assert product.flags == ("parts outside the mask", "parts outside the image")
    near, far = product.rows["parts"]
    assert near["in_image"] and not near["in_mask"] and near["crop_x0"] < 0
    assert far["visible"] and not far["in_image"] and far["crop_x0"] is None and far["x"] == -5
    corner = image_of(product.several["crops", "01_body.png"])
    assert not corner.any() and len(product.several) == 1


def test_crops_may_keep_the_background(run: Path) -> None:
    pixels, bits = bird()
    with Twin(run) as twin:
        keep, none = (plan(request_for(twin), options) for options in (Options(background="keep"), Options(crop=0)))
    product = keep.step(subject_of(pixels, bits, [[2, 2, 1], [0, 0, 0]]))
    crop = image_of(product.several["crops", "01_body.png"])
    assert tuple(crop[-1, -1]) == (30, 140, 50) and tuple(crop[0, 0]) == (0, 0, 0)
    assert none.folders == () and not none.step(subject_of(pixels, bits, [[2, 2, 1], [9, 9, 1]])).several


@pytest.mark.parametrize("options", [Options(), Options(features="colour", parts=3)])
def test_extreme_masks(run: Path, options: Options) -> None:
    pixels, bits = bird()
    with Twin(run) as twin:
        planned = plan(request_for(twin), options)
    empty = planned.step(subject_of(pixels, np.zeros_like(bits), [[9, 9, 1], [9, 9, 1]]))
    assert empty.skipped.startswith("The mask is empty")
    speck = np.zeros_like(bits)
    speck[59, 79] = True
    for mask in (speck, np.ones_like(bits)):
        product = planned.step(subject_of(pixels, mask, [[79.5, 59.5, 1], [9, 9, 0]]))
        check(planned, product)
        assert any(row["in_mask"] for row in product.rows["parts"])
    for shape in ((1, 1), (1, 300), (300, 1)):
        product = planned.step(subject_of(np.zeros((*shape, 3), np.uint8), np.ones(shape, np.bool_), [[0, 0, 1]] * 2))
        check(planned, product)
        assert sum(row["share"] or 0 for row in product.rows["parts"]) == pytest.approx(
            1 if options.features == "colour" else 0
        )


def test_clusters_are_parts_of_like_colour_in_every_image(run: Path) -> None:
    with Twin(run) as twin:
        planned = plan(request_for(twin), Options(features="colour", parts=2, place=0))
        assert "6 training images" in planned.reasons[0] and planned.warnings
        for _, _, product in products(twin, planned):
            check(planned, product)
            body, head = product.rows["parts"]
            assert body["share"] > 0.7 and 15 < head["x"] - body["x"] < 22 and -11 < head["y"] - body["y"] < -5
            labels = image_of(product.files["part_maps"])
            assert labels.shape == (60, 80) and set(np.unique(labels)) == {0, 1, 2}
            assert (labels == 1).sum() / (labels > 0).sum() == pytest.approx(body["share"])
            maps = image_of(product.files["heat_maps"]).reshape(2, 48, 64)
            assert maps.astype(int).sum(axis=0).max() <= 257 and maps[1].max() == 255
            named = {row["name"]: row["found"] for row in product.rows[ANNOTATED.name]}
            assert named["body"] == 1 and named["head"] in (2, None)


def test_a_corrected_mask_of_the_fit_makes_every_sample_again() -> None:
    image = FitImage("a.png", Path("a.png"), b"04", Size(2, 2), b"sha")
    other = replace(image, key="b.png")
    known = {digest_of((image, other)), digest_of((other, image)), digest_of((image,))}
    known |= {digest_of((image, replace(other, **one))) for one in ({"rle": b"13"}, {"sha256": b"other"})}
    assert len(known) == 5


def test_the_fit_does_not_depend_on_what_else_is_there(run: Path) -> None:
    with Twin(run) as twin:
        options = Options(features="colour", parts=3, fit_images=2)
        requests = [request_for(twin), request_for(twin, leave_out=("images/001.Auk/Auk_0002.png",))]
        first, less = (plan(request, options) for request in requests)
        assert given_of(first, requests[0].usable[0]) == given_of(less, requests[0].usable[0])
        other = plan(request_for(twin, seed=5), options)
        assert given_of(other, requests[0].usable[0]) != given_of(first, requests[0].usable[0])
        again = plan(requests[0], options)
        assert list(products(twin, first)) == list(products(twin, again))


def measured(twin: Twin, planned: Planned, out: Path) -> dict[str, Any]:
    """The summary that the end of an expansion writes."""
    rows: dict[str, list[Mapping[str, Any]]] = {table.name: [] for table in planned.tables}
    for key, split, product in products(twin, planned):
        for name, own in product.rows.items():
            rows[name] += [{"key": key, "label": "", "split": split, **row} for row in own]
    ending = Ending(lambda name: Target(out) / name, (), lambda k: given_of(planned, k), lambda name: iter(rows[name]))
    assert planned.finish is not None and planned.finish(ending) == ["localisation.json", "localisation.csv"]
    assert ending.found[0].startswith("Distance to the annotated parts: ") and len(ending.found) == 3
    lines = (out / "localisation.csv").read_text().splitlines()
    summary: dict[str, Any] = json.loads((out / "localisation.json").read_text())
    assert lines[0] == "key,distance_x,distance_x_fg,difference" and len(lines) == 1 + summary["test_images"]
    return summary


def test_the_distance_to_annotated_parts_is_measured(run: Path, tmp_path: Path) -> None:
    with Twin(run) as twin:
        summary = measured(twin, plan(request_for(twin), Options(features="colour", parts=2, place=0)), tmp_path)
    assert (summary["training_images"], summary["test_images"]) == (6, 6)
    # Of the image one cluster is background; of the subject one is the head.
    assert summary["nmi"]["x_fg"] == pytest.approx(1) and summary["nmi"]["x"] < 0.1
    assert summary["nmi"]["verdict"].startswith("Parts of the foreground localise the annotated ones better")
    assert summary["distance"]["x_fg"] < 0.05
    assert "too few training images" in summary["distance"]["verdict"]


def expansion(run: Path, out: Path, **more: Any) -> dict[Path, bytes]:
    """The files of an expansion, without those that name times and machines."""
    with expanded(run, "parts", out, options=Options(features="colour", parts=2, map_side=8)) as whole:
        report = expand(whole, **more)
    assert report.counts["done"] + report.counts["flagged"] == 12
    files = (path for path in out.rglob("*") if path.is_file() and path.parent.name != "fgfast")
    return {path.relative_to(out): path.read_bytes() for path in files}


def test_an_expansion_says_what_it_measured(run: Path, tmp_path: Path) -> None:
    files = expansion(run, tmp_path, in_process=True)
    # Three tables, two files of the measure; three maps and at most two crops for each image.
    assert 5 + 12 * 4 <= len(files) <= 5 + 12 * 5
    choices = json.loads((tmp_path / "fgfast/run.json").read_text())["choices"]
    assert any(choice.startswith("Information shared with the annotated parts: ") for choice in choices)


@pytest.mark.full  # worker processes take seconds to start
def test_an_expansion_is_the_same_in_any_number_of_workers(run: Path, tmp_path: Path) -> None:
    here = expansion(run, tmp_path / "here", in_process=True)
    assert here == expansion(run, tmp_path / "one", workers=1) == expansion(run, tmp_path / "two", workers=2)


def test_the_measure_sees_which_parts_are_better() -> None:
    draw = np.random.Generator(np.random.PCG64(0))
    landmarks = draw.random((200, 3, 2))
    near = landmarks[:, :2] + 0.01 * draw.random((200, 2, 2))
    pairs = np.array([(image, part, part % 2, 0) for image in range(200) for part in range(3)])
    splits = ["train", "test"] * 100
    keys = [str(index) for index in range(200)]
    gathered = Gathered(keys, splits, near, draw.random((200, 2, 2)), landmarks, pairs)
    summary, each = Measuring((0, "parts"), 2, 3).measure(gathered)
    assert summary["notes"] == [] and list(each) == keys[1::2]
    distance = summary["distance"]
    assert distance["difference"] < 0 and distance["interval"][1] < 0 and "better" in distance["verdict"]
    swapped = Gathered(keys, splits, gathered.everywhere, near, landmarks, pairs[:, [0, 1, 3, 2]])
    worse, _ = Measuring((0, "parts"), 2, 3).measure(swapped)
    assert "worse" in worse["distance"]["verdict"] and "worse" in worse["nmi"]["verdict"]


def test_without_test_images_nothing_is_measured() -> None:
    nothing = np.zeros((0, 2, 2))
    summary, each = Measuring((0, "parts"), 2, 2).measure(
        Gathered([], [], nothing, nothing, nothing, np.zeros((0, 4), np.int64))
    )
    assert each == {} and "Nothing was measured" in summary["notes"][0]


def test_a_data_set_without_parts_has_clusters_and_says_so(tmp_path: Path) -> None:
    for number in range(3):
        make_image(tmp_path / f"data/cat/{number}.png", number)
    with Twin(converted(tmp_path / "data", "folder")) as twin:
        planned = plan(request_for(twin), Options())
        assert planned.reasons[0].startswith("The data set has no annotated parts. 8 parts are clusters")
        assert planned.finish is None and [table.name for table in planned.tables] == ["parts"]
        for _, _, product in products(twin, planned):
            check(planned, product)
        with pytest.raises(UsageError, match="has no annotated parts; use --features colour"):
            plan(request_for(twin), Options(features="annotated"))
        with pytest.raises(UsageError, match="no image of this run"):
            plan(Request(twin, "parts", 0, (), (), Outcomes(twin.output.ledger_path)), Options())


def test_a_fit_whose_images_changed_says_so(tmp_path: Path) -> None:
    root = birds(tmp_path, annotated=False)
    with Twin(converted(root)) as twin:
        planned = plan(request_for(twin), Options())
    path, step = root / "images/001.Auk/Auk_0003.png", pickle.dumps(planned.step)
    pillow.fromarray(np.zeros((60, 80, 3), np.uint8)).save(path)
    with pytest.raises(SampleError, match=r"Auk_0003\.png, .* its file has another content") as first:
        planned.step(subject_of(*bird(), []))
    assert first.value.reason == "not fitted"
    path.unlink()
    with pytest.raises(SampleError, match="another content"):  # it is not tried again for every sample
        planned.step(subject_of(*bird(), []))
    with pytest.raises(SampleError, match=r"Auk_0003\.png, .* which changed since the run: .* convert again"):
        pickle.loads(step)(subject_of(*bird(), []))


def test_names_of_parts_cannot_lead_anywhere() -> None:
    assert file_name(3, "../../left wing") == "03_left_wing.png"
    assert file_name(12, "冠") == "12.png"
    assert len(file_name(1, "x" * 300)) < 50


def test_sixteen_parts_have_sixteen_colours() -> None:
    assert len(np.unique(palette(16), axis=0)) == 16


def test_the_real_parts_lie_on_the_birds(tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("the photographs beside the repository are absent")
    settings = Settings(segmenter="box", format="png")
    root, some = SHARED / "CUB_200_2011", fgfast.Selection(limit=4)
    fgfast.convert("cub", tmp_path / "out", root=root, settings=settings, selection=some, in_process=True)
    with Twin(tmp_path / "out") as twin:
        planned = plan(request_for(twin), Options())
        for key, _, product in products(twin, planned):
            seen = twin.sample(key).keypoints
            assert seen is not None and sum(row["visible"] for row in product.rows["parts"]) == len(seen)
            assert len(product.several) == len(seen)


def test_a_tiny_run_of_the_layouts(tmp_path: Path) -> None:
    root = cub(tmp_path)
    with Twin(converted(root)) as twin:
        for _, _, product in products(twin, plan(request_for(twin), Options())):
            assert [row["visible"] for row in product.rows["parts"]] == [True, False]


@pytest.mark.full  # importing transformers takes ten seconds
def test_parts_by_dinov2(run: Path, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from fgfast.studies import torchvision_shim

    torchvision_shim.declare()
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    transformers.Dinov2Model(transformers.Dinov2Config(**shape, image_size=56, patch_size=14)).save_pretrained(
        tmp_path / "dinov2"
    )
    with Twin(run) as twin:
        options = Options(features="dinov2", model=str(tmp_path / "dinov2"), parts=4)
        planned = plan(request_for(twin), options)
        assert set(planned.fingerprint) == {"weights", "torch", "transformers"} and not planned.warnings
        for _, _, product in products(twin, planned):
            check(planned, product)
            assert sum(row["share"] for row in product.rows["parts"]) == pytest.approx(1)
        assert "distance" in measured(twin, planned, tmp_path)
        if not torch.cuda.is_available():
            with pytest.raises(UsageError, match="no GPU"):
                plan(request_for(twin), replace(options, device="cuda"))
        (tmp_path / "dinov2/model.safetensors").write_bytes(b"nothing")
        with pytest.raises(SampleError, match="cannot be loaded as DINOv2") as broken:
            plan(request_for(twin), options).step(subject_of(*bird(), [[0, 0, 0]] * 2))
        assert broken.value.reason == "no network"

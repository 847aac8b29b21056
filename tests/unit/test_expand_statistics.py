"""Statistics of subjects: no value looks across the mask's edge; independent keypoints do not see the background."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.feature import graycomatrix, graycoprops, local_binary_pattern

from fgfast.expand.kind import Product, Request, Subject
from fgfast.expand.kinds.statistics import DISTANCES, KEYPOINTS, LEVELS, TOO_LARGE, Options, Statistics, plan
from fgfast.ops import histograms, keypoints, texture
from fgfast.records import Bool, Sample, UInt8

PHOTOS = Path(__file__).parents[2] / ".." / "shared" / "photos"


class Drawn(NamedTuple):
    pixels: UInt8
    bits: Bool


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    """Blots of all sizes on a subject of 300 x 240 px with a hole, which touches the image's right border."""
    random = np.random.default_rng(5)
    pixels = np.full((320, 400, 3), 90, np.uint8)
    for _ in range(500):
        x, y, radius = int(random.integers(400)), int(random.integers(320)), int(random.integers(2, 14))
        cv2.circle(pixels, (x, y), radius, random.integers(0, 256, 3).tolist(), -1, cv2.LINE_AA)
    pixels = np.clip(pixels + random.integers(-4, 5, pixels.shape), 0, 255).astype(np.uint8)
    bits = np.zeros((320, 400), np.uint8)
    cv2.ellipse(bits, (260, 160), (190, 140), 0, 0, 360, 1, -1)
    cv2.circle(bits, (150, 170), 9, 0, -1)
    return Drawn(pixels, bits.astype(bool))


def subject_of(pixels: UInt8, bits: Bool) -> Subject:
    return Subject(Sample("a/b.jpg", Path("b.jpg"), "a"), pixels, bits, {}, (0, "statistics", "a/b.jpg"))


def made(drawn: Drawn, **options: Any) -> Product:
    return Statistics(Options(no_plots=True, **options))(subject_of(*drawn))


def repainted(drawn: Drawn, paint: str) -> Drawn:
    """The same subject on another background."""
    pixels = drawn.pixels.copy()
    number = int((~drawn.bits).sum())
    colours = {"black": 0, "white": 255, "magenta": (255, 0, 255)}
    noise = np.random.default_rng(9).integers(0, 256, (number, 3), np.uint8)
    pixels[~drawn.bits] = colours.get(paint, noise)
    return Drawn(pixels, drawn.bits)


PAINTS = ("black", "white", "magenta", "noise")


@pytest.mark.parametrize("paint", PAINTS)
def test_a_repainted_background_changes_no_histogram_and_no_texture(drawn: Drawn, paint: str) -> None:
    (before,), (after,) = (made(d, keypoints="none").rows["statistics"] for d in (drawn, repainted(drawn, paint)))
    assert before == after
    assert before["pixels"] == drawn.bits.sum() == sum(before["rgb_r"]) == sum(before["lab_b"])


@pytest.mark.parametrize("kind", ["sift", "orb"])
def test_independent_keypoints_do_not_change_by_a_bit(drawn: Drawn, kind: str) -> None:
    everything = made(drawn, keypoints=kind, strongest=100_000).rows[kind]
    before = [row for row in everything if row["independent"]]
    assert 30 < len(before) < len(everything)
    for paint in PAINTS:
        after = made(repainted(drawn, paint), keypoints=kind, strongest=100_000).rows[kind]
        assert [row for row in after if row["independent"]] == before
        assert after != everything, "the test must show something: others do depend on the background"
    # Which of the independent ones are kept depends on them alone.
    few = made(repainted(drawn, "noise"), keypoints=kind, strongest=20).rows[kind]
    assert few == before[:20] == made(drawn, keypoints=kind, strongest=20, independent=True).rows[kind]
    assert made(drawn, keypoints=kind, independent=True, strongest=100_000).rows[kind] == before


def test_keypoints_lie_inside(drawn: Drawn) -> None:
    for kind in ("sift", "orb"):
        rows = made(drawn, keypoints=kind, strongest=100_000).rows[kind]
        places = [(int(row["y"] + 0.5), int(row["x"] + 0.5)) for row in rows]
        assert rows and all(drawn.bits[place] for place in places)
        for row, (y, x) in list(zip(rows, places, strict=True))[::50]:
            outside = np.argwhere(~drawn.bits)
            nearest = np.sqrt(((outside - (y, x)) ** 2).sum(1).min())
            assert row["edge_distance"] == pytest.approx(nearest, abs=1e-3)
            assert row["edge_sizes"] == pytest.approx(nearest / row["size"], rel=1e-5)
        assert all(len(row["descriptor"]) == {"sift": 128, "orb": 32}[kind] for row in rows)


def test_values_do_not_depend_on_where_arrays_lie_in_memory(drawn: Drawn) -> None:
    """OpenCV's distance transform does: its last bit differs."""
    pixels, bits = drawn.pixels[:200, 90:310], drawn.bits[:200, 90:310]
    found = []
    for offset in (0, 1, 4, 17):
        moved = [np.zeros(a.nbytes + offset, np.uint8)[offset:].view(a.dtype).reshape(a.shape) for a in (pixels, bits)]
        for array, old in zip(moved, (pixels, bits), strict=True):
            array[...] = old
        found.append(made(Drawn(*moved)).rows)
    assert found[1:] == found[:-1] and found[0]["sift"]


def test_sift_is_what_opencv_finds_on_the_untouched_image(drawn: Drawn) -> None:
    """The mask goes to the detector: on a black cut-out keypoints sit on the cut."""
    grey = cv2.cvtColor(drawn.pixels, cv2.COLOR_RGB2GRAY)
    detector = cv2.SIFT_create(enable_precise_upscale=True)
    points, codes = detector.detectAndCompute(grey, drawn.bits.astype(np.uint8))
    found = keypoints.sift(grey, drawn.bits)
    assert {(p.pt, p.size, p.angle, c.astype(np.uint8).tobytes()) for p, c in zip(points, codes, strict=True)} == {
        (tuple(p.tolist()), s, a, c.tobytes())
        for p, s, a, c in zip(found.points, found.sizes.tolist(), found.angles.tolist(), found.descriptors, strict=True)
    }
    assert (np.diff(found.responses) <= 0).all()
    assert set(found.octaves.tolist()) >= {-1, 0, 1} and set(found.layers.tolist()) == {1, 2, 3}


def test_where_all_is_subject_every_keypoint_is_independent(drawn: Drawn) -> None:
    rows = made(Drawn(drawn.pixels, np.ones_like(drawn.bits)), keypoints="sift").rows["sift"]
    assert rows and all(row["independent"] and row["edge_sizes"] is None is row["edge_distance"] for row in rows)


def test_the_reach_of_sift_covers_the_blur() -> None:
    """Blurred by 7.5 standard deviations and more, black and white backgrounds give the same bits on a grey subject."""
    grey = np.full((200, 400), 117, np.uint8)
    blurred = []
    for paint in (0, 255):
        grey[:, 200:] = paint
        layer = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.249)
        for sigma in (1.226, 1.545, 1.946):
            layer = cv2.GaussianBlur(layer, (0, 0), sigma)
        blurred.append(layer)
    differ = (blurred[0] != blurred[1]).any(0)
    # 1.249, which OpenCV takes for 1.6 with the camera's own blur, 1.226, ... are the layers of the first octave.
    assert 200 - np.flatnonzero(differ)[0] < keypoints.SIGMAS * 3.2


def test_cooccurrence_and_its_measures_are_those_of_scikit_image(drawn: Drawn) -> None:
    grey = cv2.cvtColor(drawn.pixels, cv2.COLOR_RGB2GRAY)
    ours = texture.cooccurrence(grey, np.ones_like(drawn.bits), LEVELS, 1)
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    theirs = graycomatrix(grey // 8, [1], angles, levels=LEVELS, symmetric=True)
    assert (ours == theirs.sum(3)[:, :, 0]).all()
    shares = (ours / ours.sum())[:, :, None, None]
    measures = texture.haralick(ours)
    for name in texture.MEASURES[:-1]:
        assert measures[name] == pytest.approx(graycoprops(shares, name)[0, 0], rel=1e-9)
    some = shares[shares > 0]
    assert measures["entropy"] == pytest.approx(-(some * np.log2(some)).sum())


@pytest.mark.parametrize("distance", DISTANCES)
def test_pairs_have_both_pixels_inside(distance: int) -> None:
    random = np.random.default_rng(1)
    grey, bits = random.integers(0, 256, (9, 7), np.uint8), random.random((9, 7)) < 0.7
    expected = np.zeros((4, 4), int)
    for y, x in np.argwhere(bits):
        for down, right in ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)):
            there = y + down * distance, x + right * distance
            if 0 <= there[0] < 9 and 0 <= there[1] < 7 and bits[there]:
                expected[grey[y, x] // 64, grey[there] // 64] += 1
    assert (texture.cooccurrence(grey, bits, 4, distance) == expected).all()


def test_binary_patterns_are_those_of_scikit_image_with_whole_neighbourhoods(drawn: Drawn) -> None:
    grey = cv2.cvtColor(drawn.pixels, cv2.COLOR_RGB2GRAY)
    theirs = local_binary_pattern(grey, 8, 1, "uniform").astype(int)
    whole = cv2.erode(drawn.bits.astype(np.uint8), np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    ours = texture.binary_patterns(grey, drawn.bits)
    assert (ours == np.bincount(theirs[whole], minlength=10)).all()
    assert ours.sum() == whole.sum() < drawn.bits.sum()


def test_histograms_are_those_of_opencv(drawn: Drawn) -> None:
    hsv = histograms.converted(drawn.pixels, "hsv")
    expected = cv2.calcHist([hsv], [0], drawn.bits.astype(np.uint8), [30], [0, 180]).ravel()
    (row,) = made(drawn, bins=30, keypoints="none").rows["statistics"]
    assert row["hsv_h"] == expected.astype(int).tolist()
    values = drawn.pixels[drawn.bits].astype(float)
    assert row["rgb_mean"] == pytest.approx(values.mean(0)) and row["rgb_deviation"] == pytest.approx(values.std(0))


def test_bins_have_equal_width() -> None:
    values = np.arange(180, dtype=np.uint8)
    assert set(histograms.histogram(values, 30, 180).tolist()) == {6}
    assert histograms.histogram(values, 256, 180).sum() == 180
    assert histograms.histogram(np.zeros(0, np.uint8), 4).tolist() == [0] * 4


EXTREMES: Mapping[str, tuple[tuple[int, int], slice]] = {
    "one pixel": ((1, 1), slice(None)),
    "one row": ((1, 300), slice(None)),
    "one column": ((300, 1), slice(None)),
    "too small for an octave": ((11, 11), slice(None)),
    "one pixel of many": ((60, 60), slice(0, 1)),
    "a corner": ((60, 60), slice(0, 9)),
    "all": ((60, 60), slice(None)),
}


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("plots", [False, True])
def test_extreme_subjects_have_rows_of_the_planned_columns(name: str, plots: bool) -> None:
    shape, place = EXTREMES[name]
    bits = np.zeros(shape, bool)
    bits[place, place] = True
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    product = Statistics(Options(no_plots=not plots))(subject_of(pixels, bits))
    tables = {table.name: table.columns for table in plan(_Nothing, Options(no_plots=not plots)).tables}
    assert set(product.rows) == set(tables) == {"statistics", "sift", "orb"}
    for table, rows in product.rows.items():
        assert all(set(row) == set(tables[table]) for row in rows)
    (row,) = product.rows["statistics"]
    assert row["pixels"] == bits.sum() and len(row["glcm_energy"]) == len(DISTANCES)
    if plots:
        assert Image.open(io.BytesIO(product.files["plots"])).width >= 3 * 64


_Nothing: Request = None  # type: ignore[assignment]  # the plan of statistics needs nothing of the run


def test_an_empty_mask_is_skipped_with_a_sentence() -> None:
    product = Statistics(Options())(subject_of(np.zeros((5, 5, 3), np.uint8), np.zeros((5, 5), bool)))
    assert product.skipped and not product.rows and not product.files


@pytest.mark.parametrize("no_plots", [True, False])
def test_an_image_too_large_for_sift_is_flagged(drawn: Drawn, no_plots: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keypoints, "SIFT_MOST_PIXELS", drawn.bits.size - 1)
    product = Statistics(Options(no_plots=no_plots))(subject_of(*drawn))
    assert product.flags == (TOO_LARGE,) and "sift" not in product.rows and product.rows["orb"]
    assert "sift_keypoints" not in product.rows["statistics"][0]


def test_a_flat_subject_has_one_level() -> None:
    (row,) = made(Drawn(np.full((40, 40, 3), 7, np.uint8), np.ones((40, 40), bool))).rows["statistics"]
    assert row["glcm_entropy"] == [0.0] * 3 and row["glcm_correlation"] == [1.0] * 3 and row["lbp"][8] == 38 * 38
    assert row["rgb_deviation"] == [0.0] * 3 and row["sift_keypoints"] == row["orb_keypoints"] == 0


@pytest.mark.parametrize("chosen", KEYPOINTS)
def test_the_plan_and_its_step(chosen: str, drawn: Drawn) -> None:
    planned = plan(_Nothing, Options(keypoints=chosen))
    step = pickle.loads(pickle.dumps(planned.step))
    one, two = (step(subject_of(*drawn)) for _ in range(2))
    assert one == two, "the same subject gives the same bytes"
    assert set(one.rows) == {table.name for table in planned.tables}
    assert set(one.files) == set(planned.files) == {planned.shown} == {"plots"}
    assert Image.open(io.BytesIO(one.files["plots"])).mode == "RGB"
    off = plan(_Nothing, Options(keypoints=chosen, no_plots=True))
    assert not off.files and not off.shown and planned.fingerprint["opencv"] == cv2.__version__


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photographs of ../shared/photos are not here")
def test_on_photographs_independent_keypoints_do_not_change_by_a_bit() -> None:
    shares = []
    for image in sorted((PHOTOS / "masks").glob("grabcut_course/images/*"))[:2]:
        pixels = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
        mask = next((image.parents[1] / "masks").glob(f"{image.stem}.*"))
        drawn = Drawn(pixels, cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE) == 255)
        before = made(drawn, strongest=100_000).rows
        for paint in ("noise",):
            after = made(repainted(drawn, paint), strongest=100_000).rows
            for kind in ("sift", "orb"):
                free = [[row for row in rows[kind] if row["independent"]] for rows in (before, after)]
                assert free[0] == free[1]
        shares += [len([row for row in before["orb"] if row["independent"]])]
    assert sum(shares)

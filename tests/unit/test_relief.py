"""Reliefs of silhouettes, and their views: against slow, plain computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from scipy.ndimage import map_coordinates

from fgfast.ops import raster, relief
from fgfast.ops.inside import window
from fgfast.records import Bool

MASKS = st_numpy.arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 7))).filter(np.any)


def boxed(bits: Bool) -> Bool:
    rows, columns = window(bits)
    return np.ascontiguousarray(bits[rows, columns])


def edges_of(faces: relief.Ints) -> list[tuple[int, int]]:
    return [(int(f[i]), int(f[(i + 1) % 3])) for f in faces for i in range(3)]


def volume(surface: relief.Surface) -> float:
    a, b, c = np.moveaxis(surface.points[surface.faces], 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


@given(MASKS)
def test_a_solid_is_closed_and_faces_outwards(bits: Bool) -> None:
    grid = relief.grid_of(boxed(bits), 32)
    surface = relief.solid(grid, relief.ball_heights(grid))
    directed = edges_of(surface.faces)
    # Each edge once in each direction: closed, and all triangles turn the same way.
    assert len(set(directed)) == len(directed) and {(b, a) for a, b in directed} == set(directed)
    assert volume(surface) > 0 and surface.closed
    assert np.unique(surface.faces).size == len(surface.points)
    assert (np.abs(surface.points[:, :2]) <= 0.5 + 1e-9).all()
    assert (surface.places >= 0).all() and (surface.places <= 1).all()
    corners = surface.points[surface.faces]
    assert (np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) > 0).all()


@given(MASKS)
def test_heights_are_those_of_all_balls(bits: Bool) -> None:
    grid = relief.grid_of(boxed(bits), 32)
    found = relief.ball_heights(grid)
    framed = np.pad(grid.inside, 1)
    corners = np.argwhere(np.ones(found.shape)) * grid.sides
    free = ~(framed[:-1, :-1] & framed[:-1, 1:] & framed[1:, :-1] & framed[1:, 1:]).ravel()
    away = ((corners[:, None] - corners[None]) ** 2).sum(axis=2)
    squares = np.where(free, -np.inf, away[:, free].min(axis=1))
    expected = np.sqrt(np.maximum((squares[None] - away).max(axis=1), 0))
    expected[free] = 0
    assert np.allclose(found.ravel(), expected, atol=1e-12)


def disc(radius: int) -> Bool:
    rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(rows**2 + columns**2 <= (radius + 0.3) ** 2)


def test_a_disc_becomes_a_ball() -> None:
    grid = relief.grid_of(disc(150), 128)
    assert grid.inside.shape == (128, 128)
    surface = relief.solid(grid, relief.ball_heights(grid))
    assert np.linalg.norm(surface.points, axis=1).max() == pytest.approx(0.5, abs=1 / 128)
    assert volume(surface) == pytest.approx(math.pi / 6, rel=0.06)


def test_a_strip_becomes_a_round_bar() -> None:
    grid = relief.grid_of(np.ones((40, 200), np.bool_), 200)
    heights = relief.ball_heights(grid)
    assert heights[:, 50:150].max(axis=0) == pytest.approx(0.1, abs=1e-9)
    assert heights[10, 100] == pytest.approx(math.sqrt(0.1**2 - 0.05**2), abs=1e-9)


def test_cells_of_thin_large_and_small_subjects() -> None:
    thin = np.zeros((300, 300), np.bool_)
    thin[np.arange(300), np.arange(300)] = True
    assert relief.grid_of(thin, 20).inside.any()
    assert relief.grid_of(np.ones((1, 1), np.bool_), 128).inside.shape == (1, 1)
    assert relief.grid_of(np.ones((1, 900), np.bool_), 128).inside.shape == (1, 128)
    assert relief.grid_of(np.ones((900, 300), np.bool_), 128).inside.shape == (128, 43)


def test_a_sheet_has_the_heights_that_it_is_given() -> None:
    grid = relief.grid_of(np.ones((10, 20), np.bool_), 64)
    values = np.linspace(0, 1, 20, dtype=np.float32)[None].repeat(10, axis=0)
    surface = relief.sheet(grid, relief.sampled(values, grid))
    assert len(surface.points) == 11 * 21 and len(surface.faces) == 2 * 200 and not surface.closed
    inner = np.abs(surface.points[:, 0]) < 0.45
    assert np.allclose(surface.points[inner, 2], (surface.points[inner, 0] * 20 + 9.5) / 19, atol=1e-6)
    normals = np.cross(*(np.diff(surface.points[surface.faces], axis=1)[:, i] for i in (0, 1)))
    assert (normals[:, 2] > 0).all()


def by_rays(points: relief.Floats, faces: relief.Ints, camera: raster.Camera) -> tuple[relief.Ints, relief.Floats]:
    """The first triangle that each pixel's ray meets, -1 for none, and the weights of its corners."""
    rows, columns = np.indices((camera.side, camera.side)) + 0.5
    middle = camera.side / 2
    ahead = np.stack([(columns - middle) / camera.focal, (middle - rows) / camera.focal, -np.ones_like(rows)], axis=-1)
    rays = ahead @ camera.pose[:3, :3].T
    first, nearest = np.full(rows.shape, -1), np.full(rows.shape, np.inf)
    weights = np.zeros((*rows.shape, 3))
    for number, (a, b, c) in enumerate(points[faces]):  # Moeller and Trumbore, 1997
        p, s = np.cross(rays, c - a), camera.pose[:3, 3] - a
        q, det = np.cross(s, b - a), p @ (b - a)
        u, v, t = p @ s / det, rays @ q / det, (c - a) @ q / det
        hit = (np.minimum(np.minimum(u, v), 1 - u - v) >= 0) & (t > 0) & (t < nearest)
        nearest[hit], first[hit] = t[hit], number
        weights[hit] = np.stack([1 - u - v, u, v], axis=-1)[hit]
    return first, weights


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_views_are_those_of_rays(seed: int) -> None:
    generator = np.random.default_rng(seed)
    points = generator.uniform(-0.6, 0.6, (9, 3))
    faces = np.array([generator.permutation(9)[:3] for _ in range(6)])
    places = generator.random((9, 2))
    texture = generator.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    pose = raster.orbit(generator.random() * 6, generator.random() - 0.5, 2.0)
    camera = raster.Camera(pose, 0.8, 23)
    image, seen = raster.render(points, faces, places, texture, camera)
    first, weights = by_rays(points, faces, camera)
    assert np.array_equal(seen, first >= 0)
    at = (weights[seen][..., None] * places[faces[first[seen]]]).sum(axis=1)
    spots = (at * [7, 5] - 0.5).T[::-1]
    channels = [map_coordinates(texture[..., n].astype(np.float64), spots, order=1, mode="nearest") for n in range(3)]
    assert np.abs(image[seen] - np.stack(channels, axis=1)).max(initial=0) < 0.51


def test_views_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = relief.grid_of(disc(20), 40)
    surface = relief.solid(grid, relief.ball_heights(grid))
    texture = np.random.default_rng(0).integers(0, 256, (41, 41, 3), dtype=np.uint8)
    camera = raster.Camera(raster.orbit(0.7, 0.3, 1.9), 0.7, 64)
    whole = raster.render(surface.points, surface.faces, surface.places, texture, camera)
    monkeypatch.setattr(raster, "_AT_ONCE", 500)
    pieces = raster.render(surface.points, surface.faces, surface.places, texture, camera)
    assert all(np.array_equal(a, b) for a, b in zip(whole, pieces, strict=True)) and whole[1].any()


@pytest.mark.parametrize("azimuth", [0.0, 0.5, 2.0, 3.5])
@pytest.mark.parametrize("elevation", [-1.0, 0.0, 0.9])
def test_cameras_look_at_the_origin_upright(azimuth: float, elevation: float) -> None:
    pose = raster.orbit(azimuth, elevation, 3.0)
    turn, place = pose[:3, :3], pose[:3, 3]
    assert np.allclose(turn.T @ turn, np.eye(3)) and np.linalg.det(turn) == pytest.approx(1)
    assert np.allclose(place - 3 * turn[:, 2], 0) and turn[1, 0] == pytest.approx(0) and turn[1, 1] > 0
    assert np.allclose(
        place,
        [
            3 * math.sin(azimuth) * math.cos(elevation),
            3 * math.sin(elevation),
            3 * math.cos(azimuth) * math.cos(elevation),
        ],
    )


def test_from_the_front_the_image_is_as_it_was() -> None:
    """Left is left and up is up; from behind, left and right are exchanged."""
    bits = np.ones((20, 40), np.bool_)
    texture = np.zeros((20, 40, 3), np.uint8)
    texture[:10, :20], texture[:10, 20:], texture[10:, :20] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    grid = relief.grid_of(bits, 20)
    surface = relief.solid(grid, np.zeros((11, 21)))
    quarters = []
    for azimuth in (0.0, math.pi):
        camera = raster.Camera(raster.orbit(azimuth, 0, 1.9), 0.7, 100)
        image, _ = raster.render(surface.points, surface.faces, surface.places, texture, camera)
        quarters.append([image[42, 30], image[42, 70], image[58, 30]])
    front, behind = np.array(quarters).argmax(axis=2).tolist()
    assert front == [0, 1, 2] and behind[:2] == [1, 0]

"""Surfaces as GLB, the binary form of glTF 2.0, written by trimesh: one mesh with a texture inside the file."""

from __future__ import annotations

from typing import Any

from fgfast.errors import MissingExtraError
from fgfast.ops.relief import Surface
from fgfast.records import UInt8


def check_trimesh() -> None:
    """Raise MissingExtraError unless trimesh is installed."""
    try:
        import trimesh  # noqa: F401
    except ImportError:
        raise MissingExtraError("trimesh", "expand", "writing meshes as GLB") from None


def glb(surface: Surface, texture: UInt8) -> bytes:
    """Return a surface as the content of a GLB file.

    The material is matt and not metallic; both sides of an open surface are seen. The texture is PNG, without loss.

    Args:
        surface: the surface.
        texture: (h, w, 3) uint8 RGB, of the subject's box.

    Raises:
        MissingExtraError: trimesh is not installed.
    """
    check_trimesh()
    import trimesh
    from PIL import Image
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    material = PBRMaterial(
        baseColorTexture=Image.fromarray(texture),
        metallicFactor=0.0,
        roughnessFactor=1.0,
        doubleSided=not surface.closed,
    )
    # trimesh counts v from the image's lower edge, glTF from the upper one; trimesh turns it when it writes.
    places = surface.places * [1, -1] + [0, 1]
    visual = TextureVisuals(uv=places, material=material)
    mesh = trimesh.Trimesh(surface.points, surface.faces, visual=visual, process=False)
    data: Any = mesh.export(file_type="glb", include_normals=True)
    return bytes(data)

"""Exported graphs on disk: their folders, names and manifests. No torch here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fgfast.backends.manifest import Manifest
from fgfast.errors import GraphError
from fgfast.graphs import Contract
from fgfast.methods import seed_of
from fgfast.models.files import digests, weights
from fgfast.records import Size
from fgfast.transfer import cache_folder

# Pixels per cell of Detic's map p3, along each edge.
_P3_STRIDE = 8


@dataclass(frozen=True, slots=True)
class Exported:
    """A graph in a file.

    Attributes:
        path: the ONNX file.
        manifest: written beside it after it passed the parity check.
    """

    path: Path
    manifest: Manifest

    @property
    def canvas(self) -> Size:
        """The canvas of a detector's graph, in pixels."""
        contract = self.manifest.contract
        if contract.graph == "detic_heads":
            return Size(*(_P3_STRIDE * int(n) for n in contract.inputs[0].shape[2:]))
        height, width = contract.inputs[0].shape[1:3]
        return Size(int(height), int(width))

    def verify(self) -> None:
        """Compare every file with the manifest's digest; files that have not changed since are not hashed again.

        Raises:
            GraphError: a file is missing or differs; the message names it.
        """
        if self.path.name not in self.manifest.files:
            raise GraphError(f"{self.path}: its manifest is that of another graph; export the model again")
        for name, wanted in self.manifest.files.items():
            file = self.path.with_name(name)
            if not file.is_file() or digests.current(file) != wanted:
                raise GraphError(f"{file} is not the file that was checked after the export; export the model again")


def folder(model: str, weights: str, precision: str, root: Path | None = None) -> Path:
    """Return the folder of a model's graphs.

    Args:
        model: "sam_vit_l", "detic", ...
        weights: from `identity`.
        precision: "fp32", "bf16" or "fp16".
        root: folder of all graphs; None takes the one in the cache.
    """
    tag = re.sub(r"[^a-z0-9]+", "-", weights.removeprefix("sha256 ").lower())
    return (root or cache_folder() / "graphs") / model / f"{tag}-{precision}"


def file_name(contract: Contract) -> str:
    """Return the name of a graph's file: graph, canvas if any, number of words or masks if fixed, batch."""
    shapes = {port.name: port.shape for port in (*contract.inputs, *contract.outputs)}
    parts = [contract.graph]
    if contract.graph == "detic_heads":
        batch, _, height, width = shapes["p3"]
        parts.append(f"p3-{height}x{width}")
        if isinstance(classes := shapes["vocabulary"][1], int):
            parts.append(f"{classes - 1}words")
    elif "pixels" in shapes:
        batch, height, width, _ = shapes["pixels"]
        if contract.graph != "sam_image_encoder":
            parts.append(f"{height}x{width}")
    else:
        batch = "any"
        if (masks := shapes["quality"][1]) != 1:
            parts.append(f"{masks}masks")
    if isinstance(batch, int):
        parts.append(f"b{batch}")
    return "-".join(parts) + ".onnx"


def find(graph: str, where: Path) -> list[Exported]:
    """Return the graphs of one name in a folder whose files all exist.

    Args:
        graph: one of fgfast.graphs.GRAPHS.
        where: from `folder`.
    """
    found = []
    for path in sorted(where.glob(f"{graph}*.onnx")):
        manifest = path.with_suffix(".json")
        if not manifest.is_file():
            continue
        exported = Exported(path, Manifest.read(manifest))
        if all(path.with_name(name).is_file() for name in exported.manifest.files):
            found.append(exported)
    return found


def identity(name: str, model_weights: str) -> str:
    """Return the identity of a model's weights: "random:SEED", or "sha256 ..." of the checkpoint.

    Args:
        name: "sam_vit_l", "detic", ...
        model_weights: "cached", "random:SEED", a file, or the folder of a checkpoint from the hub.
    """
    if seed_of(model_weights) is not None:
        return model_weights
    if model_weights == "cached":
        # The hub's snapshots are named after their commit.
        path = weights.path(name)
        return f"sha256 {digests.checked(path)[:16]}" if path.is_file() else path.name
    path = Path(model_weights).expanduser()
    inside = (path, path / "model.safetensors", path / "pytorch_model.bin")
    file = next((file for file in inside if file.is_file()), None)
    return f"sha256 {digests.current(file)[:16]}" if file else path.name

"""Removes what earlier exports left in a folder of graphs, and what no graph of today may be mixed with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from fgfast.backends.manifest import Manifest
from fgfast.errors import GraphError
from fgfast.writing import Target, locked, remove, remove_tree

# Seconds after which the working folder of an export counts as left behind by a killed process.
_ABANDONED = 86400.0


def remove_old_weights(folder: Path) -> None:
    """Remove files of weights that no graph in the folder uses, and working folders of killed exports."""
    with locked(Target(folder, ".lock")):
        beside = (path.with_suffix(".json") for path in folder.glob("*.onnx"))
        used = {name for path in beside if path.is_file() for name in _files_of(path)}
        for path in folder.glob("weights-*.bin"):
            if path.name not in used:
                remove(Target.file(path))
        for work in folder.glob(".*.part"):
            if time.time() - work.stat().st_mtime > _ABANDONED:
                remove_tree(Target(folder, work.name))


def remove_other_scales(folder: Path, digest: str, on_message: Callable[[str], None]) -> None:
    """Remove encoders with other scales, made for other batch sizes: a run may use several, and their masks differ."""
    with locked(Target(folder, ".lock")):
        for path in sorted(folder.glob("sam_image_encoder*.onnx")):
            beside = path.with_suffix(".json")
            if beside.is_file() and _scales_of(beside) != digest:
                remove(Target.file(beside))
                remove(Target.file(path))
                on_message(f"{path.name}: removed, its scales come from another calibration; export it again")


def _scales_of(manifest: Path) -> str:
    """The digest of a quantised graph's scales; empty where the manifest is damaged or has none."""
    try:
        return str(Manifest.read(manifest).quantisation.get("scales", ""))
    except GraphError:
        return ""


def _files_of(manifest: Path) -> Iterable[str]:
    """Names of a graph's files; none where the manifest is damaged, so that the graph is not used."""
    try:
        return Manifest.read(manifest).files
    except GraphError:
        return ()

"""What is kept on this machine: weights, graphs, engines; and how much room there is."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from fgfast.transfer import cache_folder


def weights() -> list[dict[str, Any]]:
    """Every model: name, title, size in bytes, whether its weights are here, and checked."""
    from fgfast.models.files import weights as models

    return [
        {
            "name": found.name,
            "title": found.title,
            "size": found.size,
            "path": str(found.path) if found.path else None,
            "verified": found.verified,
        }
        for found in models.status()
    ]


def graph_folder() -> Path:
    """Where exported graphs and engines lie. It may not exist."""
    return cache_folder() / "graphs"


def graphs() -> list[dict[str, Any]]:
    """Every exported graph and engine in the cache, with what its manifest says."""
    from fgfast.doctor import attempted

    files = [*graph_folder().rglob("*.onnx"), *graph_folder().rglob("*.engine")]
    found = []
    for file in sorted(files):
        told = attempted(partial(_graph, file))
        found.append({"path": str(file.relative_to(graph_folder())), "kind": file.suffix[1:], **told})
    return found


def _graph(file: Path) -> dict[str, Any]:
    from fgfast.errors import GraphError
    from fgfast.graphs import Manifest

    beside = file.with_suffix(".json")
    if not beside.is_file():
        raise GraphError(f"no manifest {beside.name}: it did not pass its check here and is not used; export it again")
    manifest = Manifest.read(beside)
    lacking = [name for name in manifest.files if not file.with_name(name).is_file()]
    if lacking:
        raise GraphError(f"{', '.join(lacking)} is missing; export it again")
    return {
        "model": manifest.model,
        "graph": manifest.contract.graph,
        "precision": manifest.precision,
        "weights": manifest.weights,
        "made_with": manifest.code,
        "size": sum(file.with_name(name).stat().st_size for name in manifest.files),
    }


def disk() -> list[dict[str, Any]]:
    """Room in the cache folder and here, in bytes; of a folder that is not there yet, where it would be made."""
    found = []
    for what, folder in (("cache", cache_folder()), ("here", Path.cwd())):
        place = folder.absolute()
        while not place.exists():
            place = place.parent
        usage = shutil.disk_usage(place)
        found.append({"what": what, "path": str(folder), "free": usage.free, "total": usage.total})
    return found

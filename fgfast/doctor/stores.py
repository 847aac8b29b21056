"""What fgfast stores on this machine: weights, graphs and engines; and the free disk space."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from fgfast.doctor.findings import attempted
from fgfast.transfer import cache_folder


def weights() -> list[dict[str, Any]]:
    """Every model: name, title, size in bytes, the path of its weights if any, whether they are verified; pinned."""
    from fgfast.models.files import weights as models

    return [
        {
            "name": f.name,
            "title": f.title,
            "size": f.size,
            "path": f.path and str(f.path),
            "verified": f.verified,
            "pinned": f.digest == "published",
        }
        for f in models.status()
    ]


def graph_folder() -> Path:
    """The folder of exported graphs and engines, which may not exist."""
    return cache_folder() / "graphs"


def graphs() -> list[dict[str, Any]]:
    """Every exported graph and engine in the cache, with the facts of its manifest."""
    files = [*graph_folder().rglob("*.onnx"), *graph_folder().rglob("*.engine")]
    found = []
    for file in sorted(files):
        facts = attempted(partial(_graph, file))
        found.append({"path": str(file.relative_to(graph_folder())), "kind": file.suffix[1:], **facts})
    return found


def _graph(file: Path) -> dict[str, Any]:
    from fgfast.backends.manifest import Manifest
    from fgfast.errors import GraphError

    beside = file.with_suffix(".json")
    if not beside.is_file():
        raise GraphError(
            f"{beside.name} is missing: the graph did not pass its parity check here and is not used; export it again"
        )
    manifest = Manifest.read(beside)
    if manifest.outdated:
        raise GraphError(f"this graph {manifest.outdated}; export it again")
    lacking = [name for name in manifest.files if not file.with_name(name).is_file()]
    if lacking:
        raise GraphError(f"{', '.join(lacking)} is missing; export it again")
    return {
        "model": manifest.model,
        "graph": manifest.contract.graph,
        "precision": manifest.precision,
        "weights": manifest.weights,
        "versions": manifest.code,
        "size": sum(file.with_name(name).stat().st_size for name in manifest.files),
    }


def disk() -> list[dict[str, Any]]:
    """The disk space for the cache and for the working folder, in bytes; a folder may not exist yet."""
    found = []
    for name, folder in (("cache", cache_folder()), ("here", Path.cwd())):
        path = folder.absolute()
        usage = shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists()))
        found.append({"name": name, "path": str(folder), "free": usage.free, "total": usage.total})
    return found

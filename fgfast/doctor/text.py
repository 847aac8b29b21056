"""The facts as text for a person: short, at most 100 columns wide, fit for a bug report."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from fgfast.doctor.findings import Check

_WIDTH, _LABEL = 100, 22

# A label and its text, which is wrapped; or a line that is not, such as a command to copy.
Row = tuple[str, str] | str


def report(facts: Mapping[str, Any]) -> str:
    """Everything that `fgfast.doctor.examine` found, topic by topic."""
    lines: list[str] = []
    for title, topics in _SECTIONS.items():
        lines += ["", title]
        for topic, rows_of in topics.items():
            found = facts[topic]
            broken = isinstance(found, dict) and "error" in found
            rows = [("", f"unknown: {found['error']}")] if broken else rows_of(found)
            lines += [row if isinstance(row, str) else _wrapped(*row) for row in rows]
    return "\n".join(lines[1:])


def check_line(check: Check) -> str:
    """One check in a line: state, name, detail, and seconds where it took long."""
    took = f" ({check.seconds:.1f} s)" if check.seconds >= 1 else ""
    detail = f": {check.detail}" if check.detail else ""
    return _wrapped(check.state, f"{check.name}{detail}{took}", 12)


def checks_summary(found: list[Check]) -> str:
    """The number of checks that ended in each state."""
    counts = {state: sum(c.state == state for c in found) for state in ("ok", "failed", "skipped")}
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _fgfast(own: dict[str, Any]) -> Iterator[Row]:
    yield f"fgfast {own['version']}", own["path"]
    yield "Python", f"{own['python']} {own['interpreter']}"
    ops = own["ops"] if isinstance(own["ops"], str) else own["ops"]["error"]
    yield "ops", ops if own["native"] else f"{ops}; fgfast._native is not installed"


def _machine(machine: dict[str, Any]) -> Iterator[Row]:
    yield "system", machine["system"]
    cores = f"{machine['cores_available']} of {machine['cores']} cores"
    if machine["cores_quota"] is not None:
        cores += f", limited to the CPU time of {machine['cores_quota']:g} by the control group"
    yield "processor", f"{machine['processor']}; {cores}"
    if machine["instructions"]:
        yield "instructions", " ".join(machine["instructions"])
    limit = f", limited to {_gigabytes(machine['memory_limit'])}" if machine["memory_limit"] else ""
    yield "memory", f"{_gigabytes(machine['memory_available'])} free of {_gigabytes(machine['memory'])}{limit}"


def _gpus(gpus: dict[str, Any]) -> Iterator[Row]:
    driver, torch, nvjpeg = gpus["driver"], gpus["torch"], gpus["nvjpeg"]
    usable = torch.get("found") or []
    for n, gpu in enumerate(usable or driver.get("found") or []):
        free = f"{_gigabytes(gpu['memory_free'])} free of " if gpu["memory_free"] is not None else ""
        memory = f"{free}{_gigabytes(gpu['memory'])}"
        yield f"cuda:{n}" if usable else "", f"{gpu['name']}, {memory}, compute capability {gpu['capability']}"
    if "error" in driver:
        yield "driver", driver["error"]
    elif driver["version"]:
        yield "driver", f"{driver['version']}, up to CUDA {driver['cuda']}"
    else:
        yield "driver", "not found (nvidia-smi is not installed)"
    if "error" in torch:
        yield "torch", torch["error"]
    else:
        built = f"built for CUDA {torch['cuda']}" if torch["cuda"] else "built without CUDA"
        yield "torch", f"{built}, sees {len(usable)} GPU{'s' * (len(usable) != 1)}"
    for n, gpu in enumerate(usable):
        yield f"kernels on cuda:{n}", _own_kernels(gpu.get("ops", ""))
    if usable:
        yield "Triton", _triton(gpus.get("triton") or {})
    yield "nvJPEG", nvjpeg["error"] if isinstance(nvjpeg, dict) else nvjpeg or "not found"


def _own_kernels(refusal: str | dict[str, str]) -> str:
    """Whether fgfast's own kernels run on a GPU."""
    why = refusal["error"] if isinstance(refusal, dict) else refusal
    return f"fgfast's own do not run: {why}; PyTorch's are used, and are slower" if why else "fgfast's own run"


def _triton(found: dict[str, Any]) -> str:
    """Whether Triton can compile SAM's attention."""
    if "error" in found:
        return str(found["error"])
    if not found.get("installed"):
        return "not installed; SAM's attention is PyTorch's, and slower"
    if not found["compiler"]:
        return "no C compiler, which it needs: SAM's attention is PyTorch's, and slower (install gcc, or set CC)"
    return f"compiles SAM's attention with {found['compiler']}"


def _packages(packages: dict[str, dict[str, Any]]) -> Iterator[Row]:
    installed = {name: found for name, found in packages.items() if found["version"]}
    yield "installed", ", ".join(f"{name} {found['version']}" for name, found in installed.items())
    yield from _listed("not installed", (name for name in packages if name not in installed))
    for name, found in installed.items():
        if duplicates := found.get("duplicates"):
            yield name, "is installed more than once: " + ", ".join(f"{n} {v}" for n, v in duplicates.items())
    providers = packages.get("onnxruntime", {}).get("providers")
    if isinstance(providers, dict):
        yield "onnxruntime", providers["error"]
    else:
        yield from _listed("onnxruntime runs on", (p.removesuffix("ExecutionProvider") for p in providers or ()))
    filters = packages.get("cv2", {}).get("guided_filter")
    if isinstance(filters, dict):
        yield "cv2", filters["error"]


def _weights(rows: list[dict[str, Any]]) -> Iterator[Row]:
    for row in rows:
        if row["path"]:
            size = f"{row['size'] / 1e6:,.0f} MB, " if row["size"] else ""
            pinned = "" if row["pinned"] else ", not pinned"
            yield row["name"], f"{size}{'verified' if row['verified'] else 'not verified'}{pinned}"
    yield from _listed("not downloaded", (row["name"] for row in rows if not row["path"]))


def _graphs(rows: list[dict[str, Any]]) -> Iterator[Row]:
    for row in rows:
        yield f"  {row['path']}"
        yield "", row.get("error") or f"{row['precision']}, {row['size'] / 1e6:,.0f} MB"
    if not rows:
        yield "  none"


def _disk(rows: list[dict[str, Any]]) -> Iterator[Row]:
    for row in rows:
        yield row["name"], f"{_gigabytes(row['free'])} free in {row['path']}"


def _environment(variables: dict[str, str]) -> Iterator[Row]:
    for name, value in variables.items():
        yield "", f"{name}={value}"


def _convert(chosen: dict[str, Any]) -> Iterator[Row]:
    for kind, choice in chosen.items():
        yield f"  for a data set {kind}"
        for reason in [choice["error"]] if "error" in choice else choice["reasons"]:
            yield "", reason


def _next(steps: list[dict[str, str]]) -> Iterator[Row]:
    for step in steps:
        yield "", f"{step['reason']}:"
        yield f"    {step['command']}"
    if not steps:
        yield "  nothing known"


_SECTIONS: dict[str, dict[str, Callable[[Any], Iterable[Row]]]] = {
    "This machine": {"fgfast": _fgfast, "machine": _machine},
    "GPUs": {"gpus": _gpus},
    "Packages": {"packages": _packages},
    "Weights": {"weights": _weights},
    "Graphs and engines": {"graphs": _graphs},
    "Disk and environment": {"disk": _disk, "environment": _environment},
    "What fgfast convert would use here": {"convert": _convert},
    "What would improve it": {"next": _next},
}


def _listed(label: str, items: Iterable[str]) -> Iterator[Row]:
    """A row with the items, or none where there are no items."""
    if text := ", ".join(items):
        yield label, text


def _wrapped(label: str, text: str, indent: int = _LABEL) -> str:
    """A label and its text, which is indented by 4 columns where it has no label. Words are not broken."""
    start = f"  {label}".ljust(indent - 1) + " " if label else "    "
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=" " * (indent if label else 6),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _gigabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e9:,.1f} GB"

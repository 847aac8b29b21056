"""The facts as text for a person: short, at most 100 columns wide, fit for a bug report."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from fgfast.doctor.findings import Check

_WIDTH, _LABEL = 100, 14


def report(facts: dict[str, Any]) -> str:
    """Everything that `fgfast.doctor.examine` found, topic by topic."""
    parts = (_head, _gpus, _packages, _weights, _graphs, _rest, _convert, _next)
    return "\n\n".join("\n".join(part(facts)) for part in parts)


def check_line(check: Check) -> str:
    """The line of one check."""
    took = f" ({check.seconds:.1f} s)" if check.seconds >= 1 else ""
    detail = f": {check.detail}" if check.detail else ""
    return _wrapped(f"  {check.state:<9} {check.name}{detail}{took}", 12)


def checks_summary(found: list[Check]) -> str:
    """How many checks ended in each state."""
    counts = {state: sum(c.state == state for c in found) for state in ("ok", "failed", "skipped")}
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _head(facts: dict[str, Any]) -> Iterator[str]:
    own, machine = facts["fgfast"], facts["machine"]
    if "error" in own:
        yield _broken("fgfast", own)
    else:
        yield _row(f"fgfast {own['version']}", own["path"], indent="")
        yield _row("Python", f"{own['python']}  {own['interpreter']}")
        ops = own["ops"] if isinstance(own["ops"], str) else own["ops"]["error"]
        yield _row("ops", ops if own["native"] else f"{ops}; fgfast._native is not installed")
    if "error" in machine:
        yield _broken("machine", machine)
        return
    yield _row("system", machine["system"])
    cores = f"{machine['cores_available']} of {machine['cores']} cores"
    if machine["cores_quota"] is not None:
        cores += f", time of {machine['cores_quota']:g} granted by the control group"
    yield _row("processor", f"{machine['processor']}; {cores}")
    if machine["instructions"]:
        yield _row("", " ".join(machine["instructions"]))
    limit = f", limited to {_gigabytes(machine['memory_limit'])}" if machine["memory_limit"] else ""
    free = f"{_gigabytes(machine['memory_available'])} free of " if machine["memory_available"] else ""
    yield _row("memory", f"{free}{_gigabytes(machine['memory'])}{limit}")


def _gpus(facts: dict[str, Any]) -> Iterator[str]:
    yield "GPUs"
    gpus = facts["gpus"]
    if "error" in gpus:
        yield _broken("", gpus)
        return
    driver, torch = gpus["driver"], gpus["torch"]
    seen = driver.get("found") or []
    usable = torch.get("found") or []
    for n, gpu in enumerate(usable or seen):
        free = f"{_gigabytes(gpu['memory_free'])} free of " if gpu["memory_free"] is not None else ""
        yield _row(
            f"cuda:{n}" if usable else "",
            f"{gpu['name']}, {free}{_gigabytes(gpu['memory'])}, compute capability {gpu['capability']}",
        )
    if "error" in driver:
        yield _row("driver", driver["error"])
    elif driver["version"]:
        yield _row("driver", f"{driver['version']}, up to CUDA {driver['cuda']}")
    else:
        yield _row("driver", "not found (nvidia-smi is not installed)")
    if "error" in torch:
        yield _row("torch", torch["error"])
    else:
        built = f"built for CUDA {torch['cuda']}" if torch["cuda"] else "built without CUDA"
        yield _row("torch", f"{built}, sees {len(usable)} GPU{'s' * (len(usable) != 1)}")
    nvjpeg = gpus["nvjpeg"]
    yield _row("nvJPEG", nvjpeg["error"] if isinstance(nvjpeg, dict) else nvjpeg or "not found")


def _packages(facts: dict[str, Any]) -> Iterator[str]:
    yield "Packages"
    packages = facts["packages"]
    if "error" in packages:
        yield _broken("", packages)
        return
    installed = {name: found for name, found in packages.items() if found["version"]}
    yield _list(f"{name} {found['version']}" for name, found in installed.items())
    if absent := [name for name in packages if name not in installed]:
        yield _list(absent, "not installed: ")
    for name, found in installed.items():
        if duplicates := found.get("duplicates"):
            yield _list((f"{n} {v}" for n, v in duplicates.items()), f"{name} is installed more than once: ")
    providers = packages.get("onnxruntime", {}).get("providers")
    if providers:
        names = [providers["error"]] if isinstance(providers, dict) else providers
        yield _list((name.removesuffix("ExecutionProvider") for name in names), "ONNX Runtime's providers: ")
    filters = packages.get("cv2", {}).get("guided_filter")
    if isinstance(filters, dict):
        yield _row("cv2", filters["error"])


def _weights(facts: dict[str, Any]) -> Iterator[str]:
    yield "Weights"
    rows = facts["weights"]
    if isinstance(rows, dict):
        yield _broken("", rows)
        return
    for row in rows:
        if row["path"]:
            size = f"{row['size'] / 1e6:,.0f} MB" if row["size"] else ""
            yield f"  {row['name']:<20} {size:>9}  {'verified' if row['verified'] else 'not verified'}"
    if absent := [row["name"] for row in rows if not row["path"]]:
        yield _list(absent, "not downloaded: ")


def _graphs(facts: dict[str, Any]) -> Iterator[str]:
    yield "Graphs and engines"
    rows = facts["graphs"]
    if isinstance(rows, dict):
        yield _broken("", rows)
        return
    for row in rows:
        facts_of_row = row.get("error") or f"{row['precision']}, {row['size'] / 1e6:,.0f} MB"
        yield f"  {row['path']}"  # in one piece, like a command
        yield _wrapped(f"    {facts_of_row}")
    if not rows:
        yield "  none"


def _rest(facts: dict[str, Any]) -> Iterator[str]:
    yield "Disk and environment"
    rows = facts["disk"]
    for row in rows if isinstance(rows, list) else ():
        yield _row(row["name"], f"{_gigabytes(row['free'])} free in {row['path']}")
    if isinstance(rows, dict):
        yield _broken("disk", rows)
    for name, value in facts["environment"].items():
        yield _wrapped(f"  {name}={value}")


def _convert(facts: dict[str, Any]) -> Iterator[str]:
    yield "What fgfast convert would use here"
    chosen = facts["convert"]
    if "error" in chosen:
        yield _broken("", chosen)
        return
    for kind, choice in chosen.items():
        yield f"  for a data set {kind}"
        for reason in [choice["error"]] if "error" in choice else choice["reasons"]:
            yield _wrapped(f"    {reason}", 6)


def _next(facts: dict[str, Any]) -> Iterator[str]:
    yield "What would improve it"
    steps = facts["next"]
    if isinstance(steps, dict):
        yield _broken("", steps)
        return
    for step in steps:
        yield _wrapped(f"  {step['reason']}:", 4)
        yield f"    {step['command']}"  # in one piece, so that it can be copied
    if not steps:
        yield "  nothing known"


def _row(label: str, text: str, indent: str = "  ") -> str:
    start = f"{indent}{label:<{_LABEL - len(indent)}}"
    if not start.endswith(" "):
        start += "  "
    return _wrapped(start + text, _LABEL)


def _list(items: Iterable[str], start: str = "") -> str:
    # Names and versions stay together.
    text = ", ".join(item.replace(" ", "\0") for item in items)
    return _wrapped(f"  {start}{text}", 4).replace("\0", " ")


def _wrapped(text: str, indent: int = 4) -> str:
    start = text[: len(text) - len(text.lstrip())]
    fold = textwrap.TextWrapper(
        _WIDTH,
        initial_indent=start,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return fold.fill(text.lstrip())


def _broken(label: str, topic: dict[str, Any]) -> str:
    return _row(label, f"unknown: {topic['error']}")


def _gigabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e9:,.1f} GB"

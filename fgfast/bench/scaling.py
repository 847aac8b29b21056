"""The same job on one device and on several, in both placements: rates, and whether the twins are the same bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fgfast.bench import events as told
from fgfast.bench import job
from fgfast.bench.job import Job
from fgfast.bench.result import Result, Row, envelope
from fgfast.errors import UsageError

PLACEMENTS = ("replicate", "split")


class Setting(NamedTuple):
    """Where a job runs.

    Attributes:
        devices: one for each worker process.
        placement: "replicate" or "split"; of one device it makes no difference.
    """

    devices: tuple[str, ...]
    placement: str

    @property
    def title(self) -> str:
        """The setting in words."""
        return ",".join(self.devices) + (f" {self.placement}" if len(self.devices) > 1 else "")


def measure(what: Job, devices: Sequence[str], *, images: int, folder: Path, rounds: int = 1) -> Result:
    """Run a job in every setting, in turns.

    Args:
        what: the job; its own devices do not count.
        devices: lists such as "cuda:0,cuda:1"; empty: `default()`.
        images: how many a run.
        folder: where to work; says which disk is measured.
        rounds: runs in each setting; medians are quoted.

    Returns:
        Rate of each setting; how many times the first one's that is; its efficiency: that, for each device that is
        there and not only listed twice.

    Raises:
        AssertionError: a setting's images or masks are other bytes than the first one's.
    """
    settings = settings_of(devices or default())
    split = len(what.models) > 1
    settings = [s for s in settings if split or s.placement != "split"]
    rates: dict[Setting, list[float]] = {setting: [] for setting in settings}
    busy: dict[Setting, float] = {}
    wanted: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="fgfast-bench-", dir=folder) as scratch:
        source = job.make_images(Path(scratch) / "source", images)
        for _ in range(rounds):
            for setting in settings:
                ran = job.run(job.on(what, *setting), source, Path(scratch) / "out")
                found = job.digests(ran.out)
                wanted = wanted or found
                if other := sorted(name for name in wanted | found if wanted.get(name) != found.get(name)):
                    raise AssertionError(
                        f"{setting.title} made other bytes than {settings[0].title}: {len(other)} of {len(wanted)} "
                        f"files, {other[0]} the first"
                    )
                rates[setting].append(told.pace(ran.events) or ran.rate)
                shares = told.busy(ran.events, told.steady(ran.events))
                busy[setting] = 100 * sum(shares.values()) / len(shares) if shares else 0.0
    rows = rows_of(rates, busy)
    return envelope(
        "scaling",
        rows,
        title=f"One device and several: {what.title}",
        rounds=rounds,
        notes=[
            f"Rates once under way. {len(wanted)} files of each run are the first setting's, byte for byte.",
            "Efficiency counts a device once, however often it is listed: two workers on one device stand in for two "
            "devices as far as the engine goes, but share what it can compute.",
        ],
        headline=[f"{settings[-1].title}: rate", f"{settings[-1].title}: efficiency"],
        images=images,
        image=source.about,
        plots=_plots(rates),
    )


def default() -> list[str]:
    """Lists of devices for this machine: one GPU, several, the first one twice; without GPUs the CPU once and twice."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return ["cpu", "cpu,cpu"]
    every = [",".join(f"cuda:{n}" for n in range(some)) for some in (2, 4, 8) if some <= count]
    return ["cuda:0", *every, "cuda:0,cuda:0"]


def settings_of(lists: Sequence[str]) -> list[Setting]:
    """Every list in every placement that differs.

    Raises:
        UsageError: a list names no device.
    """
    found = []
    for text in lists:
        devices = tuple(part.strip() for part in text.split(","))
        if not all(devices):
            raise UsageError(f"devices {text!r} must be names between commas, for example cuda:0,cuda:1")
        placements = PLACEMENTS if len(devices) > 1 else PLACEMENTS[:1]
        found += [Setting(devices, placement) for placement in placements]
    return list(dict.fromkeys(found))


def rows_of(rates: dict[Setting, list[float]], busy: dict[Setting, float]) -> list[Row]:
    """Rates of each setting beside the first one's, round by round."""
    first, own = next(iter(rates.items()))
    rows = []
    for setting, values in rates.items():
        times = [value / other for value, other in zip(values, own, strict=True)]
        more = len(set(setting.devices)) / len(set(first.devices))
        rows.append(Row.of("rate", values, "images/s", "higher", setting.title))
        rows.append(Row.of(f"against {first.title}", times, "times", "higher", setting.title))
        rows.append(Row.of("efficiency", [100 * t / more for t in times], "%", "higher", setting.title))
        rows.append(Row("devices busy with models, on average", busy[setting], "%", "higher", setting.title))
    return rows


def _plots(rates: dict[Setting, list[float]]) -> dict[str, Any]:
    values = [(setting.title, sorted(rounds)[len(rounds) // 2]) for setting, rounds in rates.items()]
    note = "Once under way; median of the rounds."
    bars = {"title": "Rate by devices", "note": note, "unit": "images per second", "of": "devices", "values": values}
    return {"bars": [bars]}

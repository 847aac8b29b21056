"""Measures one job on one device and on several, in both placements, and checks that the twins are the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fgfast.bench import events, job
from fgfast.bench.job import Job
from fgfast.bench.result import Result, Row, envelope
from fgfast.errors import UsageError
from fgfast.writing import scratch_folder

PLACEMENTS = ("replicate", "split")


class Setting(NamedTuple):
    """The devices of a job.

    Attributes:
        devices: one per worker process.
        placement: "replicate" or "split"; with one device it makes no difference.
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
        what: the job; its own devices are ignored.
        devices: lists such as "cuda:0,cuda:1"; `default()` where there are none.
        images: images per run.
        folder: the folder to work in; its disk is measured.
        rounds: runs in each setting; medians are quoted.

    Returns:
        For each setting the rate, the rate over that of the first setting, and the efficiency: that ratio over the
        ratio of the numbers of different devices.

    Raises:
        AssertionError: the images or masks of a setting differ from those of the first one in any byte.
    """
    settings = settings_of(devices or default())
    split = len(what.models) > 1
    settings = [s for s in settings if split or s.placement != "split"]
    rates: dict[Setting, list[float]] = {setting: [] for setting in settings}
    busy: dict[Setting, float] = {}
    wanted: dict[str, str] = {}
    with scratch_folder("fgfast-bench-", folder) as scratch:
        source = job.make_images(scratch / "source", images)
        for _ in range(rounds):
            for setting in settings:
                ran = job.run(job.on(what, *setting), source, scratch / "out")
                found = job.digests(ran.out)
                wanted = wanted or found
                if other := sorted(name for name in wanted | found if wanted.get(name) != found.get(name)):
                    raise AssertionError(
                        f"{setting.title} made other bytes than {settings[0].title}: {len(other)} of {len(wanted)} "
                        f"files, {other[0]} the first"
                    )
                rates[setting].append(events.pace(ran.events) or ran.rate)
                shares = events.busy(ran.events, events.steady(ran.events))
                busy[setting] = 100 * sum(shares.values()) / len(shares) if shares else 0.0
    rows = rows_of(rates, busy)
    return envelope(
        "scaling",
        rows,
        title=f"One device and several: {what.title}",
        rounds=rounds,
        notes=[
            f"Rates are those once under way. {len(wanted)} files of each run equal those of the first setting.",
            "Efficiency counts a device once, however often it is listed: two workers on one device test the engine as "
            "two devices would, but share what the device can compute.",
        ],
        headline=[f"{settings[-1].title}: rate", f"{settings[-1].title}: efficiency"],
        images=images,
        image=source.about,
        plots={
            "bars": {
                "title": "Rate by devices, once under way",
                "unit": "images per second",
                "values": [(row.group, row.value) for row in rows if row.name == "rate"],
            }
        },
    )


def default() -> list[str]:
    """Return the lists for this machine: one GPU, several, the first one twice; without GPUs the CPU once and twice."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        return ["cpu", "cpu,cpu"]
    every = [",".join(f"cuda:{n}" for n in range(some)) for some in (2, 4, 8) if some <= count]
    return ["cuda:0", *every, "cuda:0,cuda:0"]


def settings_of(lists: Sequence[str]) -> list[Setting]:
    """Return every list of devices in every placement that makes a difference.

    Raises:
        UsageError: an entry of a list is empty.
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
    """Return the rows of each setting, compared with the first one round by round."""
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

"""Worker processes that crash, hang, break their device or are killed: nothing is lost, and the run goes on."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # worker processes import the jobs by this name

from jobs import FullError, Item, TestJob, quarantined

from fgfast.errors import DatasetError, RecordingFailedError, UnknownNameError, WorkerLostError
from fgfast.runner import Event, Supervisor, WorkerSpec

ONE = [WorkerSpec("a", "a")]
TWO = [WorkerSpec("a", "a"), WorkerSpec("b", "b")]


def supervised(
    folder: Path, acts: dict[int, str], count: int = 300, specs: list[WorkerSpec] = ONE, **job: Any
) -> dict[int, tuple[str, tuple[str, ...]]]:
    """Number -> how it ended, and where; every item ends once."""
    results: list[tuple[int, str, tuple[str, ...]]] = []
    with Supervisor(TestJob(folder, **job), specs, quarantined, deadline=1.0) as supervisor:
        stop = threading.Event()
        supervisor.open(stop)
        supervisor.run((Item(n, acts.get(n, "")) for n in range(count)), results.extend, stop)
    assert sorted(number for number, *_ in results) == list(range(count))
    return {number: (how, phases) for number, how, phases in results}


def test_all_is_done_and_several_workers_share_it(tmp_path: Path) -> None:
    ends = supervised(tmp_path, {}, 600, TWO, seconds=0.001)
    assert {how for how, _ in ends.values()} == {"done"}
    assert {phases for _, phases in ends.values()} == {("a/0",), ("b/0",)}


@pytest.mark.parametrize("act", ["segfault", "hang", "break"])
@pytest.mark.parametrize("specs", [ONE, TWO], ids=["one worker", "two workers"])
def test_what_takes_its_worker_with_it_twice_is_quarantined_and_nothing_else(
    act: str, specs: list[WorkerSpec], tmp_path: Path
) -> None:
    ends = supervised(tmp_path, {77: act, 200: f"{act} once", 10: "fail"}, specs=specs)
    others = {n: how for n, (how, _) in ends.items() if how != "done"}
    assert set(others) == {10, 77}
    assert others[10] == "ValueError: item 10 cannot be done"
    word, why = {
        "segfault": ("crash", "signal SIGSEGV"),
        "hang": ("hang", "it did not respond for 1 s"),
        "break": ("device failed", "DeviceBrokenError: CUDA error: an illegal memory access was encountered"),
    }[act]
    # With others, alone in one worker, and then alone on another where there is one.
    times = len(specs) + 1
    assert others[77] == (
        f"quarantined: {word}: its worker process crashed {times} times, "
        f"the last time with no other item in flight ({why})"
    )


def test_a_long_item_that_gives_signs_of_life_is_no_hang(tmp_path: Path) -> None:
    """It takes three seconds, where a second without a sign of life is a hang."""
    results: list[tuple[int, str, tuple[str, ...]]] = []
    with Supervisor(TestJob(tmp_path, threads=1), ONE, quarantined, deadline=1.0, ahead=False) as supervisor:
        supervisor.open(threading.Event())
        items = (Item(n, act) for n, act in enumerate(("long", "long, silent", "")))
        supervisor.run(items, results.extend, threading.Event())
    ends = {number: how for number, how, _ in results}
    assert ends[0] == ends[2] == "done" and "it did not respond for 1 s" in ends[1]


def test_long_items_wait_for_whoever_is_free(tmp_path: Path) -> None:
    """Four items of three seconds on two workers: none gets one ahead that the other could begin."""
    results: list[tuple[int, str, tuple[str, ...]]] = []
    job = TestJob(tmp_path, threads=1)
    with Supervisor(job, TWO, quarantined, deadline=1.0, ahead=False) as supervisor:
        supervisor.open(threading.Event())
        begun = time.monotonic()
        supervisor.run((Item(n, "long") for n in range(4)), results.extend, threading.Event())
        took = time.monotonic() - begun
    assert sorted(number for number, *_ in results) == [0, 1, 2, 3]
    assert sorted(phases for *_, phases in results) == [("a/0",), ("a/0",), ("b/0",), ("b/0",)]
    assert took < 10


def test_a_long_item_ends_where_it_gives_a_sign_of_life_once_the_run_is_stopped(tmp_path: Path) -> None:
    results: list[tuple[int, str, tuple[str, ...]]] = []
    stop = threading.Event()
    with Supervisor(TestJob(tmp_path, threads=1), ONE, quarantined, ahead=False) as supervisor:
        supervisor.open(stop)
        threading.Timer(0.5, stop.set).start()
        begun = time.monotonic()
        supervisor.run((Item(n, "long") for n in range(2)), results.extend, stop)
    assert results == [] and time.monotonic() - begun < 2.5


def test_several_in_a_row_are_each_found(tmp_path: Path) -> None:
    ends = supervised(tmp_path, dict.fromkeys(range(40, 45), "segfault"), 100)
    assert {n for n, (how, _) in ends.items() if how != "done"} == set(range(40, 45))


def test_killing_workers_twenty_times_loses_nothing(tmp_path: Path) -> None:
    results: list[tuple[int, str, tuple[str, ...]]] = []
    generator = random.Random(5)
    kills = 0
    with Supervisor(TestJob(tmp_path, seconds=0.004), TWO, quarantined) as supervisor:
        stop, over = threading.Event(), threading.Event()
        supervisor.open(stop)

        def kill() -> None:
            nonlocal kills
            while kills < 20 and not over.is_set():
                time.sleep(generator.uniform(0.02, 0.15))
                process = generator.choice(supervisor.handles).process
                if process is not None and process.poll() is None:
                    os.kill(process.pid, signal.SIGKILL)
                    kills += 1

        killer = threading.Thread(target=kill)
        killer.start()

        def items() -> Iterator[Item]:
            n = 0
            while kills < 20 or n < 1000:
                yield Item(n)
                n += 1

        supervisor.run(items(), results.extend, stop)
        over.set()
        killer.join()
    assert kills == 20
    numbers = sorted(number for number, *_ in results)
    assert numbers == list(range(len(numbers))) and len(numbers) >= 1000
    assert {how for _, how, _ in results} == {"done"}


def test_a_job_in_two_phases_goes_from_worker_to_worker(tmp_path: Path) -> None:
    specs = [WorkerSpec("a", "a", (0, 1)), WorkerSpec("b", "b", (1, 2))]
    ends = supervised(tmp_path, {50: "fail", 120: "segfault"}, specs=specs, phases=2)
    assert {phases for how, phases in ends.values() if how == "done"} == {("a/0", "b/1")}
    assert ends[50][0].startswith("ValueError")
    assert ends[120][0].startswith("quarantined: crash")


def test_a_dead_device_s_queue_goes_to_the_others(tmp_path: Path) -> None:
    ends = supervised(tmp_path, dict.fromkeys(range(30, 300, 20), "segfault once"), 400, TWO, unable=("b",))
    assert {how for how, _ in ends.values()} == {"done"}
    assert ("a/0",) in {phases for _, phases in ends.values()}


def test_a_device_that_breaks_at_everything_costs_no_item(tmp_path: Path) -> None:
    ends = supervised(tmp_path, {}, 300, TWO, breaks=("b",))
    assert {how for how, _ in ends.values()} == {"done"}
    assert {phases for _, phases in ends.values()} == {("a/0",)}


def test_a_worker_that_hangs_while_it_opens_again_does_not_hold_up_the_end(tmp_path: Path) -> None:
    start = time.monotonic()
    ends = supervised(tmp_path, {40: "segfault once"}, 200, TWO, slow_again=60.0)
    assert {how for how, _ in ends.values()} == {"done"}
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("act", ["unsendable", "unreadable"])
def test_a_result_that_cannot_cross_ends_the_run_or_its_worker_and_does_not_hang(act: str, tmp_path: Path) -> None:
    if act == "unsendable":
        with pytest.raises(Exception, match="unsendable"):
            supervised(tmp_path, {50: act}, 200)
        return
    ends = supervised(tmp_path, {50: f"{act} once"}, 200)
    assert {how for how, _ in ends.values()} == {"done"}


def test_a_dead_device_s_part_of_the_job_goes_to_the_others(tmp_path: Path) -> None:
    specs = [WorkerSpec("a", "a", (0, 1)), WorkerSpec("b", "b", (1, 2))]
    ends = supervised(
        tmp_path, dict.fromkeys(range(30, 300, 20), "segfault once"), specs=specs, phases=2, unable=("b",)
    )
    assert {how for how, _ in ends.values()} == {"done"}
    assert ("a/0", "a/1") in {phases for _, phases in ends.values()}


def test_when_the_last_worker_is_lost_the_run_ends_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(WorkerLostError, match=r"all workers are lost \(a: exit status 9\).*start the same command"):
        supervised(tmp_path, {20: "segfault once"}, unable=("a",))


def test_what_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    with (
        Supervisor(TestJob(tmp_path, refuse=True), TWO, quarantined) as supervisor,
        pytest.raises(FullError, match="refused"),
    ):
        supervisor.open(threading.Event())
    (tmp_path / "dead a").touch()
    with (
        Supervisor(TestJob(tmp_path, unable=("a",)), ONE, quarantined) as supervisor,
        pytest.raises(WorkerLostError, match=r"a crashed while it loaded the models \(exit status 9\)"),
    ):
        supervisor.open(threading.Event())


def test_a_process_whose_recording_fails_is_replaced(tmp_path: Path) -> None:
    ends = supervised(tmp_path, {}, count=20, specs=TWO, records=4)
    assert {how for how, _ in ends.values()} == {"done"}


def test_recordings_do_not_fail_for_ever(tmp_path: Path) -> None:
    """Where no note can be kept, which is not to be."""
    with (
        Supervisor(TestJob(tmp_path, records=99), ONE, quarantined) as supervisor,
        pytest.raises(RecordingFailedError, match="graph 8 cannot be recorded"),
    ):
        supervisor.open(threading.Event())


def test_a_fatal_error_of_a_worker_ends_the_run_with_what_is_done(tmp_path: Path) -> None:
    results: list[Any] = []
    with Supervisor(TestJob(tmp_path), TWO, quarantined) as supervisor:
        stop = threading.Event()
        supervisor.open(stop)
        with pytest.raises(FullError, match="no space left"):
            supervisor.run((Item(n, "full" if n == 100 else "") for n in range(100_000)), results.extend, stop)
    numbers = {number for number, *_ in results}
    assert 100 not in numbers and 50 < len(numbers) < 5000


def test_stopping_ends_soon_and_keeps_what_is_done(tmp_path: Path) -> None:
    results: list[Any] = []
    with Supervisor(TestJob(tmp_path, seconds=0.01), TWO, quarantined) as supervisor:
        stop = threading.Event()
        supervisor.open(stop)
        threading.Timer(0.3, stop.set).start()
        start = time.monotonic()
        supervisor.run((Item(n) for n in range(100_000)), results.extend, stop)
        assert time.monotonic() - start < 3
    assert 10 < len(results) < 1000
    assert {how for _, how, _ in results} == {"done"}


def test_errors_of_the_source_and_of_the_collector_reach_the_caller(tmp_path: Path) -> None:
    def broken() -> Iterator[Item]:
        yield Item(0)
        raise RuntimeError("list broken")

    def refuse(batch: list[Any]) -> None:
        raise RuntimeError("ledger gone")

    for items, collect, words in ((broken(), list, "list broken"), (map(Item, range(5000)), refuse, "ledger gone")):
        with Supervisor(TestJob(tmp_path), ONE, quarantined) as supervisor:
            stop = threading.Event()
            supervisor.open(stop)
            with pytest.raises(RuntimeError, match=words):
                supervisor.run(items, collect, stop)


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = (
        "import sys, threading, time; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from jobs import *; from fgfast.runner import Supervisor, WorkerSpec\n"
        "s = Supervisor(TestJob(Path(sys.argv[2]), seconds=0.05), [WorkerSpec('a', 'a')], quarantined)\n"
        "stop = threading.Event(); print(s.open(stop)[0]['pid'], flush=True)\n"
        "s.run(map(Item, range(100000)), list, stop)\n"
    )
    import subprocess

    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path)], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not running(worker):
            return
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its parent")


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_events_of_workers_reach_the_parent(tmp_path: Path) -> None:
    events: list[Event] = []
    with Supervisor(TestJob(tmp_path), TWO, quarantined, watch=events.append) as supervisor:
        stop = threading.Event()
        supervisor.open(stop)
        supervisor.run(map(Item, range(300)), list, stop)
    acts = [event for event in events if event.stage == "act"]
    assert len(acts) == 300 and {event.worker for event in acts} == {"a", "b"}
    assert all(0 < event.start <= event.end <= time.monotonic() for event in events)


@pytest.mark.parametrize(
    "error",
    [UnknownNameError("precision", "fp23", ("fp32", "bf16")), DatasetError(Path("a.txt"), "is empty", 7)],
)
def test_errors_cross_processes_as_what_they_are(error: Exception) -> None:
    import pickle

    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and str(copy) == str(error) and copy.exit_code == error.exit_code


@pytest.mark.parametrize("items", [20_000, pytest.param(100_000, marks=pytest.mark.full)])
def test_memory_of_both_processes_stays_flat(items: int, tmp_path: Path) -> None:
    """Parent and worker together hold at most 5 % more memory after the last item than after 5,000."""
    at_5000: list[int] = []
    count = 0

    with Supervisor(TestJob(tmp_path), ONE, quarantined) as supervisor:
        stop = threading.Event()
        (facts,) = supervisor.open(stop)

        at_end: list[int] = []

        def memory() -> list[int]:
            pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in (os.getpid(), facts["pid"])]
            return [n * os.sysconf("SC_PAGE_SIZE") // 1024 for n in pages]

        def collect(batch: list[Any]) -> None:
            nonlocal count
            count += len(batch)
            if count >= 5000 and not at_5000:
                at_5000.extend(memory())
            if count >= items - 1000 and not at_end:
                at_end.extend(memory())

        supervisor.run(map(Item, range(items)), collect, stop)
    assert count == items
    assert sum(at_end) <= sum(at_5000) * 1.05, (at_5000, at_end)

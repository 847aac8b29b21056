"""A run in worker processes, which survives crashes, hangs and broken devices.

The parent gives each worker items ahead of its work; the worker's in-flight table shows which of them it has started.
When its process crashes, a new one replaces it; items that had not been started return to the queue, and the others
are retried, each one alone (see `fgfast.runner.queues`). An item that crashes its worker again is passed to
`quarantine`, and the run continues. A lost worker (see `fgfast.runner.worker_handle`) leaves its items to the others.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from fgfast.errors import RecordingFailedError, WorkerLostError
from fgfast.runner.messages import Job, WorkerSpec
from fgfast.runner.queues import Outbox, Task, Tasks
from fgfast.runner.stages import Watch
from fgfast.runner.worker_handle import Crash, Inbox, WorkerHandle

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger("fgfast")

# Seconds without a result for an item after which a worker counts as hanging; slow machines get more, see
# WorkerHandle.overdue.
DEADLINE = 300.0
# Seconds between two looks at `stop`, and between two searches for hangs.
_TICK, _LOOK = 0.1, 1.0
# Processes of a worker that may end because a CUDA graph cannot be recorded, before that ends the run.
_RECORDINGS = 8


class Supervisor(contextlib.AbstractContextManager["Supervisor[T, R]"], Generic[T, R]):
    """Worker processes for a job; a context manager, which ends them.

    Args:
        job: the job.
        specs: the workers.
        quarantine: makes the result of an item that crashes its workers, from the reason in a word and in a sentence.
        deadline: seconds; see DEADLINE.
        watch: called in the parent with each piece of work.
        ahead: whether workers get items before they need them; not where an item takes minutes, which another worker
            could begin.

    Attributes:
        handles: the workers' handles.
        crashes: number of processes that crashed while there was work.
    """

    def __init__(
        self,
        job: Job[T, R],
        specs: Sequence[WorkerSpec],
        quarantine: Callable[[T, str, str], R],
        *,
        deadline: float = DEADLINE,
        watch: Watch | None = None,
        ahead: bool = True,
    ) -> None:
        self._job, self._quarantine, self._deadline, self._watch = job, quarantine, deadline, watch
        self._ahead = ahead
        self.handles: list[WorkerHandle[T]] = [WorkerHandle(spec, ahead=ahead) for spec in specs]
        self._inbox: Inbox = queue.SimpleQueue()
        self._tasks: Tasks[T] = Tasks((), job.phases)
        self._outbox: Outbox[R] = Outbox()
        self._error: Exception | None = None
        self._stopping = False
        self.crashes = 0

    def __exit__(self, *exc: object) -> None:
        for handle in self.handles:
            handle.close()

    def open(self, stop: threading.Event) -> list[dict[str, Any]]:
        """Start all workers and wait until each is ready, or `stop` is set; return the facts that each reported.

        Raises:
            Exception: what opening the job raised in any of them.
            WorkerLostError: a worker crashed while it opened the job.
        """
        for handle in self.handles:
            if not handle.turn:
                handle.start(self._job, self._watch is not None, self._inbox)
        while any(handle.state == "opening" for handle in self.handles) and not stop.is_set():
            try:
                handle, turn, message = self._inbox.get(timeout=_TICK)
            except queue.Empty:
                continue
            if message is None and handle.turn == turn:
                ended = handle.wait()
                if stop.is_set():
                    break
                raise WorkerLostError(handle.spec.name, f"crashed while it loaded the models ({ended})")
            if message is not None and message[0] == "refused" and handle.turn == turn:
                if not isinstance(message[1], RecordingFailedError) or turn > _RECORDINGS:
                    raise message[1]
                # Each graph fails once on a machine: the next process finds the note.
                log.warning("%s is restarted: %s", handle.spec.name, message[1])
                handle.wait()
                handle.start(self._job, self._watch is not None, self._inbox)
                continue
            self._receive(handle, turn, message)
        return [handle.facts for handle in self.handles]

    def add(self, job: Job[T, R], specs: Sequence[WorkerSpec], stop: threading.Event) -> None:
        """Start further workers beside those that are ready, as `open` does; where that fails, only these remain.

        Every process that is started from now on opens `job`.
        """
        before, self._job, new = self.handles, job, [WorkerHandle[T](spec, ahead=self._ahead) for spec in specs]
        self.handles = [*before, *new]
        try:
            self.open(stop)
        except Exception:
            self.handles = before
            for handle in new:
                handle.close()
                handle.turn += 1  # its last messages are nobody's
            raise

    def run(self, items: Iterable[T], collect: Callable[[list[R]], None], stop: threading.Event) -> None:
        """Process every item; return when all results are collected.

        Args:
            items: taken as workers become free.
            collect: called in this thread with results, in the order in which they arrive.
            stop: when set, no further item is taken; items in flight on a device are finished and collected.

        Raises:
            Exception: what a worker, `items` or `collect` raised, after draining.
            WorkerLostError: no worker is left.
        """
        self._tasks = Tasks(items, self._job.phases)
        self._outbox.collect(lambda: self._dispatch(stop), collect, stop.set, "fgfast-dispatch")

    def _dispatch(self, stop: threading.Event) -> None:
        looked = 0.0
        while True:
            self._error = self._error or self._tasks.items.error
            if self._error is not None:
                stop.set()
            if stop.is_set():
                self._stop_workers()
            else:
                self._give()
            if not self._living():
                break
            with contextlib.suppress(queue.Empty):
                self._receive(*self._inbox.get(timeout=_TICK))
            now = time.monotonic()
            if now - looked > _LOOK and self._inbox.empty():
                looked = now
                self._look_for_hangs(now)
        if self._error is not None:
            raise self._error
        if not stop.is_set() and not self._nothing_left():
            why = "; ".join(f"{handle.spec.name}: {handle.why}" for handle in self.handles)
            raise WorkerLostError("all workers", f"are lost ({why})")

    def _stop_workers(self) -> None:
        """Let workers finish the items in flight, once; kill those that are still starting."""
        if self._stopping:
            return
        self._stopping = True
        for handle in self._living():
            if handle.state == "opening":
                handle.kill()
            else:
                handle.leave("stop")

    def _living(self) -> list[WorkerHandle[T]]:
        return [handle for handle in self.handles if handle.state in ("opening", "open", "leaving")]

    def _nothing_left(self) -> bool:
        return self._tasks.ended() and not any(handle.given for handle in self.handles)

    # Giving.

    def _give(self) -> None:
        """Give every worker as many tasks as it may have; end all workers when nothing is left."""
        for handle in self.handles:
            self._feed(handle)
        if not self._nothing_left():
            return
        for handle in self._living():
            if handle.state == "open":
                handle.leave("end")
            elif handle.state == "opening":
                handle.state = "leaving"
                handle.kill()

    def _feed(self, handle: WorkerHandle[T]) -> None:
        if handle.state != "open" or handle.single or not handle.hungry:
            return
        if self._tasks.alone and self._serves_alone(handle, self._tasks.alone[0]):
            if not handle.given:
                handle.single = True
                handle.give([self._tasks.alone.popleft()])
            return
        between = 2 * sum(c.window for c in self.handles)
        tasks: list[Task[T]] = []
        while len(handle.given) + len(tasks) < handle.window:
            task = self._tasks.next(handle.spec.phases, between)
            if task is None:
                break
            tasks.append(task)
        if tasks:
            handle.give(tasks)

    def _serves_alone(self, handle: WorkerHandle[T], task: Task[T]) -> bool:
        """Whether this worker is to try a task alone: one that has not tried it before, if there is any; of those, one
        that is idle, or else the first.
        """
        able = [c for c in self._living() if task.fits(c.spec)]
        able = [c for c in able if c.spec.name not in task.alone] or able
        able = [c for c in able if c.state == "open"]
        idle = [c for c in able if not c.given or c.single]
        return handle in (idle or able[:1])

    # Messages.

    def _receive(self, handle: WorkerHandle[T], turn: int, message: tuple[Any, ...] | None) -> None:
        if turn != handle.turn:
            return  # a message from an earlier process
        if message is None:
            self._crashed(handle)
            return
        kind, *content = message
        if kind == "results":
            self._results(handle, *content)
        elif kind == "opened":
            handle.opened(*content)
        elif kind == "log":
            log.log(content[0], "%s", content[1])
        elif kind == "failed":
            self._error = self._error or content[0]
            handle.state = "leaving"
        elif kind in ("broken", "refused"):
            handle.why = str(content[0])
        elif kind == "ended":
            handle.state = "leaving"

    def _results(self, handle: WorkerHandle[T], results: list[tuple[int, bool, Any]], events: list[Any]) -> None:
        handle.answered(len(results), time.monotonic())
        for ticket, handed_off, value in results:
            task = handle.given.pop(ticket, None)
            if task is None:
                continue
            if handed_off:
                self._tasks.handed_off(task, value, handle.spec.phases[1])
            else:
                self._outbox.put(value)
        if not handle.given:
            handle.single = False
        if self._watch:
            for event in events:
                self._watch(event)

    # Crashes.

    def _look_for_hangs(self, now: float) -> None:
        for handle in self.handles:
            if handle.overdue(self._deadline, now):
                handle.hung = True
                log.warning("%s does not respond; it is killed and restarted", handle.spec.name)
                handle.kill()

    def _crashed(self, handle: WorkerHandle[T]) -> None:
        if self._stopping or (handle.state == "leaving" and not handle.given):
            handle.wait()
            handle.take_back()
            handle.state = "gone"
            return
        self.crashes += 1
        crash = handle.crashed()
        log.warning("%s crashed (%s)%s", handle.spec.name, handle.why, "" if crash.last else "; it is restarted")
        self._tasks.put_back(crash.queued)
        if crash.last:
            self._lost(handle)
        else:
            handle.start(self._job, self._watch is not None, self._inbox)
        for task in crash.in_flight:
            task.crashed(handle.spec.name, crash.single, crash.killed)
            if task.hopeless(c.spec for c in self._living()):
                self._quarantined(task, crash)
            else:
                self._tasks.alone.append(task)

    def _quarantined(self, task: Task[T], crash: Crash[T]) -> None:
        what = f"it did not respond for {self._deadline:g} s" if crash.reason == "hang" else crash.detail
        detail = f"its worker process crashed {task.crashes} times, the last time with no other item in flight ({what})"
        self._outbox.put(self._quarantine(task.item, crash.reason, detail))

    def _lost(self, handle: WorkerHandle[T]) -> None:
        """Continue without a worker; if no other does one of its phases, the others take over all phases."""
        log.error("%s is lost (%s); the others continue", handle.spec.name, handle.why)
        others = self._living()
        covered = {phase for other in others for phase in range(*other.spec.phases)}
        if len(covered) == self._job.phases:
            return
        for other in others:
            log.warning("%s takes over all phases of the work", other.spec.name)
            self._tasks.put_back(other.take_back())  # none of these items is to blame
            other.kill()
            other.wait()
            other.spec, other.single = WorkerSpec(other.spec.name, other.spec.device, (0, self._job.phases)), False
            other.start(self._job, self._watch is not None, self._inbox)

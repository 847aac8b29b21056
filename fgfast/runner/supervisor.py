"""A run in worker processes: what a crash, a hang or a broken device cannot take with it.

The parent gives each worker items ahead of its work; the worker's in-flight table says which of them it has begun.
When its process crashes, a new one takes over; what had not begun goes back into the queue, and what had is tried
again, each item alone (see `fgfast.runner.tasks`). An item that fails so, too, is handed to `quarantine`, and the run
goes on. A worker that is lost (see `fgfast.runner.worker_handle`) leaves its queue to the others.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

from fgfast.errors import WorkerLostError
from fgfast.runner.messages import Job, WorkerSpec
from fgfast.runner.outbox import Outbox
from fgfast.runner.stages import Watch
from fgfast.runner.tasks import Task, Tasks
from fgfast.runner.worker_handle import Crash, Inbox, WorkerHandle

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger("fgfast")

# Seconds after which a worker that has not answered for an item is taken to hang; slow machines get more, see
# WorkerHandle.overdue.
DEADLINE = 300.0
# The parent looks for `stop` and for hangs so often, in seconds.
_TICK, _LOOK = 0.1, 1.0


class Supervisor(Generic[T, R]):
    """Worker processes for a job. Use as a context manager: leaving it ends them.

    Args:
        job: what they do.
        specs: the workers.
        quarantine: makes a result of an item that crashes its workers, of a word and a sentence about why.
        deadline: seconds, see DEADLINE.
        watch: called with each piece of work, in the parent.

    Attributes:
        handles: the workers' handles.
        crashes: processes that crashed while there was work.
    """

    def __init__(
        self,
        job: Job[T, R],
        specs: Sequence[WorkerSpec],
        quarantine: Callable[[T, str, str], R],
        *,
        deadline: float = DEADLINE,
        watch: Watch | None = None,
    ) -> None:
        self._job, self._quarantine, self._deadline, self._watch = job, quarantine, deadline, watch
        self.handles: list[WorkerHandle[T]] = [WorkerHandle(spec) for spec in specs]
        self._inbox: Inbox = queue.SimpleQueue()
        self._tasks: Tasks[T] = Tasks((), job.phases)
        self._outbox: Outbox[R] = Outbox()
        self._error: Exception | None = None
        self._stopping = False
        self.crashes = 0

    def __enter__(self) -> Supervisor[T, R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self.handles:
            handle.close()

    def open(self, stop: threading.Event) -> list[dict[str, Any]]:
        """Start all workers and wait until each is ready, or `stop` is set; what each reported about its job.

        Raises:
            Exception: what the job raised on opening, in any of them.
            WorkerLostError: one crashed while it opened.
        """
        for handle in self.handles:
            self._start(handle)
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
            if message is not None and message[0] == "refused":
                raise message[1]
            self._receive(handle, turn, message)
        return [handle.facts for handle in self.handles]

    def run(self, items: Iterable[T], collect: Callable[[list[R]], None], stop: threading.Event) -> None:
        """Have every item done; return when all are collected.

        Args:
            items: taken as workers become free.
            collect: called in this thread with results, in the order in which they come.
            stop: when set, no further item is taken; what is in flight on a device is finished and collected.

        Raises:
            Exception: what a worker, `items` or `collect` raised, after draining.
            WorkerLostError: no worker is left.
        """
        self._tasks = Tasks(items, self._job.phases)
        thread = threading.Thread(target=self._guarded, args=(stop,), name="fgfast-dispatch", daemon=True)
        thread.start()
        try:
            for batch in self._outbox.batches():
                collect(batch)
        except BaseException:
            stop.set()
            self._outbox.abandon()
            raise
        finally:
            thread.join()
        if self._error is not None:
            raise self._error

    def _guarded(self, stop: threading.Event) -> None:
        try:
            self._dispatch(stop)
        except Exception as error:
            self._error = self._error or error
            stop.set()
        finally:
            self._outbox.close()

    def _dispatch(self, stop: threading.Event) -> None:
        looked = 0.0
        while True:
            self._error = self._error or self._tasks.error
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
        if not stop.is_set() and not self._nothing_left():
            why = "; ".join(f"{handle.spec.name}: {handle.why}" for handle in self.handles)
            raise WorkerLostError("all workers", f"are lost ({why})")

    def _stop_workers(self) -> None:
        """Once: workers finish what is in flight, except those that only start."""
        if self._stopping:
            return
        self._stopping = True
        for handle in self._living():
            if handle.state == "opening":
                handle.kill()
            else:
                self._leave(handle, "stop")

    def _living(self) -> list[WorkerHandle[T]]:
        return [handle for handle in self.handles if handle.state in ("opening", "open", "leaving")]

    def _nothing_left(self) -> bool:
        return self._tasks.ended() and not any(handle.given for handle in self.handles)

    @staticmethod
    def _leave(handle: WorkerHandle[T], word: str) -> None:
        handle.state = "leaving"
        handle.send(word)

    # Giving.

    def _give(self) -> None:
        """Give every worker what it may have; where nothing is left, end them all."""
        for handle in self.handles:
            self._feed(handle)
        if not self._nothing_left():
            return
        for handle in self._living():
            if handle.state == "open":
                self._leave(handle, "end")
            elif handle.state == "opening":
                handle.state = "leaving"
                handle.kill()

    def _feed(self, handle: WorkerHandle[T]) -> None:
        if handle.state != "open" or handle.single:
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
        """A task to be tried alone waits for a worker that has not had it alone, if there is one; and of these for one
        that has nothing else to do, or the first.
        """
        able = [c for c in self._living() if task.fits(c.spec)]
        able = [c for c in able if c.spec.name not in task.alone] or able
        able = [c for c in able if c.state == "open"]
        idle = [c for c in able if not c.given or c.single]
        return handle in (idle or able[:1])

    # Messages.

    def _receive(self, handle: WorkerHandle[T], turn: int, message: tuple[Any, ...] | None) -> None:
        if turn != handle.turn:
            return  # of an earlier process
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
                log.warning("%s does not answer; it is ended and started again", handle.spec.name)
                handle.kill()

    def _crashed(self, handle: WorkerHandle[T]) -> None:
        if self._stopping or (handle.state == "leaving" and not handle.given):
            handle.wait()
            handle.take_back()
            handle.state = "gone"
            return
        self.crashes += 1
        crash = handle.crashed()
        log.warning("%s crashed (%s)%s", handle.spec.name, handle.why, "" if crash.last else "; it is started again")
        self._tasks.put_back(crash.queued)
        if crash.last:
            self._lost(handle)
        else:
            self._start(handle)
        for task in crash.in_flight:
            task.crashed(handle.spec.name, crash.single, crash.killed)
            if task.hopeless(c.spec for c in self._living()):
                self._quarantined(task, crash)
            else:
                self._tasks.alone.append(task)

    def _quarantined(self, task: Task[T], crash: Crash[T]) -> None:
        what = f"it gave no answer for {self._deadline:g} s" if crash.reason == "hang" else crash.detail
        detail = f"its worker process crashed {task.crashes} times, the last time with nothing else to do ({what})"
        self._outbox.put(self._quarantine(task.item, crash.reason, detail))

    def _lost(self, handle: WorkerHandle[T]) -> None:
        """A worker is lost: the others take its queue, and where none does a phase of the job, all of the job."""
        log.error("%s is lost (%s); the others go on", handle.spec.name, handle.why)
        others = self._living()
        covered = {phase for other in others for phase in range(*other.spec.phases)}
        if len(covered) == self._job.phases:
            return
        for other in others:
            log.warning("%s takes over all of the work", other.spec.name)
            self._tasks.put_back(other.take_back())  # none of them is to blame
            other.kill()
            other.wait()
            other.spec, other.single = WorkerSpec(other.spec.name, other.spec.device, (0, self._job.phases)), False
            self._start(other)

    def _start(self, handle: WorkerHandle[T]) -> None:
        handle.start(self._job, self._watch is not None, self._inbox)

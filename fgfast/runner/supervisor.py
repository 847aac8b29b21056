"""A run in worker processes, one a seat: what a crash, a hang or a broken device cannot take with it.

The parent gives each worker items ahead of its work; which of them the worker has touched stands in a table. When a
worker dies, a new one takes its seat; what was not touched goes back into the queue, and what was is tried again, each
item alone (see `fgfast.runner.tasks`). An item that is given up is handed to `quarantine`, and the run goes on. A seat
that is lost (see `fgfast.runner.seats`) leaves its queue to the others.
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
from fgfast.runner.messages import Job, Seat
from fgfast.runner.outbox import Outbox
from fgfast.runner.seats import Chair, Death, Inbox
from fgfast.runner.stages import Watch
from fgfast.runner.tasks import Task, Tasks

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger("fgfast")

# Seconds after which a worker that has not answered for an item is taken to hang; slow machines get more, see Chair.
DEADLINE = 300.0
# The parent looks for `stop` and for hangs so often, in seconds.
_TICK, _LOOK = 0.1, 1.0


class Supervisor(Generic[T, R]):
    """Worker processes for a job. Use as a context manager: leaving it ends them.

    Args:
        job: what they do.
        seats: where.
        quarantine: makes a result of an item that was given up, of a word and a sentence about why.
        deadline: seconds, see DEADLINE.
        watch: called with each piece of work, in the parent.

    Attributes:
        chairs: the seats and who sits there.
        deaths: workers that died while there was work.
    """

    def __init__(
        self,
        job: Job[T, R],
        seats: Sequence[Seat],
        quarantine: Callable[[T, str, str], R],
        *,
        deadline: float = DEADLINE,
        watch: Watch | None = None,
    ) -> None:
        self._job, self._quarantine, self._deadline, self._watch = job, quarantine, deadline, watch
        self.chairs: list[Chair[T]] = [Chair(seat) for seat in seats]
        self._inbox: Inbox = queue.SimpleQueue()
        self._tasks: Tasks[T] = Tasks((), job.parts)
        self._outbox: Outbox[R] = Outbox()
        self._error: Exception | None = None
        self._stopping = False
        self.deaths = 0

    def __enter__(self) -> Supervisor[T, R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for chair in self.chairs:
            chair.close()

    def open(self, stop: threading.Event) -> list[dict[str, Any]]:
        """Start all workers and wait until each is ready, or `stop` is set; what each said about its job.

        Raises:
            Exception: what the job raised on opening, in any of them.
            WorkerLostError: one died while it opened.
        """
        for chair in self.chairs:
            self._start(chair)
        while any(chair.state == "opening" for chair in self.chairs) and not stop.is_set():
            try:
                chair, turn, message = self._inbox.get(timeout=_TICK)
            except queue.Empty:
                continue
            if message is None and chair.turn == turn:
                how = chair.buried()
                if stop.is_set():
                    break
                raise WorkerLostError(chair.seat.name, f"died while it loaded the models ({how})")
            if message is not None and message[0] == "refused":
                raise message[1]
            self._hear(chair, turn, message)
        return [chair.facts for chair in self.chairs]

    def run(self, items: Iterable[T], collect: Callable[[list[R]], None], stop: threading.Event) -> None:
        """Have every item done; return when all are collected.

        Args:
            items: taken as workers become free.
            collect: called in this thread with results, in the order in which they come.
            stop: when set, no further item is taken; what is under way on a device is finished and collected.

        Raises:
            Exception: what a worker, `items` or `collect` raised, after draining.
            WorkerLostError: no seat is left.
        """
        self._tasks = Tasks(items, self._job.parts)
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
                self._tell_to_stop()
            else:
                self._give()
            if not self._living():
                break
            with contextlib.suppress(queue.Empty):
                self._hear(*self._inbox.get(timeout=_TICK))
            now = time.monotonic()
            if now - looked > _LOOK and self._inbox.empty():
                looked = now
                self._look_for_hangs(now)
        if not stop.is_set() and not self._nothing_left():
            why = "; ".join(f"{chair.seat.name}: {chair.why}" for chair in self.chairs)
            raise WorkerLostError("all workers", f"are lost ({why})")

    def _tell_to_stop(self) -> None:
        """Once: whoever works finishes what is under way, and who only starts need not."""
        if self._stopping:
            return
        self._stopping = True
        for chair in self._living():
            if chair.state == "opening":
                chair.kill()
            else:
                self._leave(chair, "stop")

    def _living(self) -> list[Chair[T]]:
        return [chair for chair in self.chairs if chair.state in ("opening", "open", "leaving")]

    def _nothing_left(self) -> bool:
        return self._tasks.ended() and not any(chair.given for chair in self.chairs)

    @staticmethod
    def _leave(chair: Chair[T], word: str) -> None:
        chair.state = "leaving"
        chair.send(word)

    # Giving.

    def _give(self) -> None:
        """Give every worker what it may have; where nothing is left, let all go."""
        for chair in self.chairs:
            self._feed(chair)
        if not self._nothing_left():
            return
        for chair in self._living():
            if chair.state == "open":
                self._leave(chair, "end")
            elif chair.state == "opening":
                chair.state = "leaving"
                chair.kill()

    def _feed(self, chair: Chair[T]) -> None:
        if chair.state != "open" or chair.single:
            return
        if self._tasks.alone and self._serves_alone(chair, self._tasks.alone[0]):
            if not chair.given:
                chair.single = True
                chair.give([self._tasks.alone.popleft()])
            return
        between = 2 * sum(c.window for c in self.chairs)
        tasks: list[Task[T]] = []
        while len(chair.given) + len(tasks) < chair.window:
            task = self._tasks.next(chair.seat.parts, between)
            if task is None:
                break
            tasks.append(task)
        if tasks:
            chair.give(tasks)

    def _serves_alone(self, chair: Chair[T], task: Task[T]) -> bool:
        """A task to be tried alone waits for a seat where it was not yet, if there is one; and of these for one that
        has nothing else to do, or the first.
        """
        able = [c for c in self._living() if task.fits(c.seat)]
        able = [c for c in able if c.seat.name not in task.alone] or able
        able = [c for c in able if c.state == "open"]
        idle = [c for c in able if not c.given or c.single]
        return chair in (idle or able[:1])

    # Hearing.

    def _hear(self, chair: Chair[T], turn: int, message: tuple[Any, ...] | None) -> None:
        if turn != chair.turn:
            return  # of a worker that was given up
        if message is None:
            self._died(chair)
            return
        kind, *content = message
        if kind == "results":
            self._results(chair, *content)
        elif kind == "opened":
            chair.opened(*content)
        elif kind == "log":
            log.log(content[0], "%s", content[1])
        elif kind == "failed":
            self._error = self._error or content[0]
            chair.state = "leaving"
        elif kind in ("broken", "refused"):
            chair.why = str(content[0])
        elif kind == "ended":
            chair.state = "leaving"

    def _results(self, chair: Chair[T], results: list[tuple[int, bool, Any]], events: list[Any]) -> None:
        chair.answered(len(results), time.monotonic())
        for ticket, passed, value in results:
            task = chair.given.pop(ticket, None)
            if task is None:
                continue
            if passed:
                self._tasks.passed(task, value, chair.seat.parts[1])
            else:
                self._outbox.put(value)
        if not chair.given:
            chair.single = False
        if self._watch:
            for event in events:
                self._watch(event)

    # Deaths.

    def _look_for_hangs(self, now: float) -> None:
        for chair in self.chairs:
            if chair.overdue(self._deadline, now):
                chair.hung = True
                log.warning("%s does not answer; it is ended and begun anew", chair.seat.name)
                chair.kill()

    def _died(self, chair: Chair[T]) -> None:
        if self._stopping or (chair.state == "leaving" and not chair.given):
            chair.buried()
            chair.leave_all()
            chair.state = "gone"
            return
        self.deaths += 1
        death = chair.died()
        log.warning("%s died (%s)%s", chair.seat.name, chair.why, "" if death.last else "; it is begun anew")
        self._tasks.put_back(death.untouched)
        if death.last:
            self._lost(chair)
        else:
            self._start(chair)
        for task in death.touched:
            task.died(chair.seat.name, death.single, death.killed)
            if task.hopeless(c.seat for c in self._living()):
                self._give_up(task, death)
            else:
                self._tasks.alone.append(task)

    def _give_up(self, task: Task[T], death: Death[T]) -> None:
        what = f"it gave no answer for {self._deadline:g} s" if death.reason == "hang" else death.how
        detail = f"its worker process died {task.deaths} times, the last time with nothing else to do ({what})"
        self._outbox.put(self._quarantine(task.item, death.reason, detail))

    def _lost(self, chair: Chair[T]) -> None:
        """Nobody can sit here any more: the others take the queue, and where none does a part of the job, all of it."""
        log.error("%s is lost (%s); the others go on", chair.seat.name, chair.why)
        others = self._living()
        covered = {part for other in others for part in range(*other.seat.parts)}
        if len(covered) == self._job.parts:
            return
        for other in others:
            log.warning("%s takes over all of the work", other.seat.name)
            self._tasks.put_back(other.leave_all())  # none of them is to blame
            other.kill()
            other.buried()
            other.seat, other.single = Seat(other.seat.name, other.seat.device, (0, self._job.parts)), False
            self._start(other)

    def _start(self, chair: Chair[T]) -> None:
        chair.start(self._job, self._watch is not None, self._inbox)

"""A run in worker processes, one a seat: what a crash, a hang or a broken device cannot take with it.

The parent gives each worker items ahead of its work and notes which of them it has touched. When a worker dies, a new
one takes its seat; what was not touched goes back into the queue, and what was is tried once more, each item alone. An
item that is alone when its worker dies again is handed to `quarantine`, and the run goes on. A seat whose workers
cannot open any more is lost, and the others take its queue.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

from fgfast.errors import WorkerLostError
from fgfast.runner.messages import Job, Seat
from fgfast.runner.outbox import Outbox
from fgfast.runner.seats import Chair, Inbox, Task
from fgfast.runner.stages import Watch

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger("fgfast")

# Seconds after which a worker that has not answered for an item is taken to hang; slow machines get more, see Chair.
DEADLINE = 300.0
# An item is given up when a worker dies with it alone, and, where there are several seats, on a second one: the first
# device may be to blame. Being killed from outside (by the system for want of memory, by a person) says less about the
# item: then it takes so many deaths.
_ALONE, _KILLED = 2, 3
# A seat is lost when its workers cannot open so many times in a row; or are killed from outside so often while they do,
# which may be chance; or say so often that their device is broken, or die so often, without finishing anything.
_OPENINGS, _KILLED_OPENING, _BROKEN, _DEATHS = 3, 10, 5, 20
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
        self._queues: list[deque[Task[T]]] = [deque() for _ in range(job.parts)]
        self._alone: deque[Task[T]] = deque()
        self._outbox: Outbox[R] = Outbox()
        self._error: Exception | None = None
        self._source: Iterator[T] | None = None
        self._tickets = 0
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
            chair.start(self._job, self._watch is not None, self._inbox)
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
        self._source = iter(items)
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
            if self._error is not None:
                stop.set()
            if stop.is_set() and not self._stopping:
                self._stopping = True
                for chair in self._living():
                    if chair.state == "open":
                        self._leave(chair, "stop")
                    else:
                        chair.kill()
            if not stop.is_set():
                for chair in self.chairs:
                    self._feed(chair)
                if self._nothing_left():
                    for chair in self._living():
                        if chair.state == "open":
                            self._leave(chair, "end")
                        elif chair.state == "opening":
                            chair.state = "leaving"
                            chair.kill()
            if not self._living():
                break
            try:
                chair, turn, message = self._inbox.get(timeout=_TICK)
                self._hear(chair, turn, message)
            except queue.Empty:
                pass
            now = time.monotonic()
            if now - looked > _LOOK and self._inbox.empty():
                looked = now
                self._look_for_hangs(now)
        if not stop.is_set() and not self._nothing_left():
            why = "; ".join(f"{chair.seat.name}: {chair.why}" for chair in self.chairs)
            raise WorkerLostError("all workers", f"are lost ({why})")

    def _living(self) -> list[Chair[T]]:
        return [chair for chair in self.chairs if chair.state in ("opening", "open", "leaving")]

    def _nothing_left(self) -> bool:
        waiting = self._alone or any(self._queues) or any(chair.given for chair in self.chairs)
        return self._source is None and not waiting

    @staticmethod
    def _leave(chair: Chair[T], word: str) -> None:
        chair.state = "leaving"
        chair.send(word)

    # Giving.

    def _feed(self, chair: Chair[T]) -> None:
        if chair.state != "open" or chair.single:
            return
        if self._alone and self._serves_alone(chair):
            if not chair.given:
                chair.single = True
                chair.give([self._alone.popleft()])
            return
        tasks: list[Task[T]] = []
        while len(chair.given) + len(tasks) < chair.window and (task := self._next(chair)) is not None:
            tasks.append(task)
        if tasks:
            chair.give(tasks)

    def _serves_alone(self, chair: Chair[T]) -> bool:
        """Items to be tried alone wait for a seat that has nothing else: an idle one, else the first that can."""
        task = self._alone[0]
        able = [c for c in self._others(task) or self._able(task) if c.state == "open"]
        idle = [c for c in able if not c.given or c.single]
        return chair in (idle or able[:1])

    def _able(self, task: Task[T]) -> list[Chair[T]]:
        """Seats that can do a task, or will when they are open again."""
        return [c for c in self._living() if c.seat.parts[0] <= task.part < c.seat.parts[1]]

    def _others(self, task: Task[T]) -> list[Chair[T]]:
        """Of these, the ones on which it has not died alone."""
        return [c for c in self._able(task) if c.seat.name not in task.alone]

    def _next(self, chair: Chair[T]) -> Task[T] | None:
        """The task that is furthest along, of those that the chair can do; then a new one from the source."""
        first, end = chair.seat.parts
        for part in range(end - 1, first - 1, -1):
            if self._queues[part]:
                return self._queues[part].popleft()
        if first > 0 or self._source is None or self._crowded():
            return None
        try:
            item = next(self._source)
        except StopIteration:
            self._source = None
            return None
        except Exception as error:
            self._source, self._error = None, error
            return None
        self._tickets += 1
        return Task(self._tickets, item)

    def _crowded(self) -> bool:
        """Whether so many items wait between two parts that no new ones should be begun."""
        return any(len(waiting) > 2 * sum(c.window for c in self.chairs) for waiting in self._queues[1:])

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
                task.item, task.part = value, chair.seat.parts[1]
                self._queues[task.part].append(task)
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
        how = chair.buried()
        was, tasks, single = chair.state, list(chair.given.values()), chair.single
        chair.given.clear()
        chair.single, chair.state = False, "gone"
        if self._stopping or (was == "leaving" and not tasks):
            return
        reason = "hang" if chair.hung else "device failed" if chair.why and how == "exit status 70" else "crash"
        chair.why = chair.why or how
        touched, suspects = chair.holds(), []
        for task in reversed(tasks):
            if task.ticket in touched:
                suspects.append((task, single))
            else:
                self._queues[task.part].appendleft(task)
        chair.deaths += 1
        chair.broken += reason == "device failed"
        if was == "opening":
            killed = how == "signal SIGKILL" and not chair.hung
            chair.killed_opening += killed
            chair.openings += not killed
        self.deaths += 1
        lost = (
            chair.openings >= _OPENINGS
            or chair.killed_opening >= _KILLED_OPENING
            or chair.broken >= _BROKEN
            or chair.deaths >= _DEATHS
        )
        why = chair.why
        log.warning("%s died (%s)%s", chair.seat.name, why, "" if lost else "; it is begun anew")
        if lost:
            self._lost(chair)
        else:
            chair.start(self._job, self._watch is not None, self._inbox)
        for task, single in suspects:
            self._suspect(task, single, reason, chair.seat.name, why if reason == "device failed" else how)

    def _suspect(self, task: Task[T], single: bool, reason: str, seat: str, how: str) -> None:
        """A worker died with a task that it had touched: it is tried alone, or given up."""
        task.deaths += 1
        if single:
            if how == "signal SIGKILL" and reason != "hang":
                task.killed += 1
            else:
                task.alone.add(seat)
        # Without any seat left nothing can be said of the task; it waits for the next run.
        hopeless = bool(task.alone) and not self._others(task) and bool(self._living())
        if len(task.alone) < _ALONE and task.killed < _KILLED and not hopeless:
            self._alone.append(task)
            return
        what = f"it gave no answer for {self._deadline:g} s" if reason == "hang" else how
        detail = f"its worker process died {task.deaths} times, the last time with nothing else to do ({what})"
        self._outbox.put(self._quarantine(task.item, reason, detail))

    def _lost(self, chair: Chair[T]) -> None:
        """Nobody can sit here any more: the others take the queue, and its parts of the job."""
        chair.state = "lost"
        log.error("%s is lost (%s); the others go on", chair.seat.name, chair.why)
        others = self._living()
        for part in range(self._job.parts):
            if any(c.seat.parts[0] <= part < c.seat.parts[1] for c in others):
                continue
            for other in others:
                whole = Seat(other.seat.name, other.seat.device, (0, self._job.parts))
                log.warning("%s takes over all of the work", other.seat.name)
                for task in other.given.values():  # none of them is to blame
                    self._queues[task.part].appendleft(task)
                other.given.clear()
                other.kill()
                other.turn += 1
                other.buried()
                other.seat, other.single = whole, False
                other.start(self._job, self._watch is not None, self._inbox)
            return

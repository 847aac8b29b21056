"""Runs items through stages: queues, slots, devices, worker processes, order, failures. Knows nothing of images.

stages       what it runs: steps and batched stages
batching     the ring of slots of one batched stage
flow         items through stages within one process
outbox       results on their way to the one who collects
local        a run within this process
messages     what parent and worker processes tell each other
touched      what a worker holds in its hands
worker       a worker process
seats        the parent's side of one seat
supervisor   a run in worker processes: crashes, hangs, retries
"""

from fgfast.runner.local import run
from fgfast.runner.messages import Job, Opened, Passed, Seat
from fgfast.runner.stages import Batched, Event, Failures, Finished, Stage, Step, Watch, is_batched
from fgfast.runner.supervisor import DEADLINE, Supervisor

__all__ = [
    "DEADLINE",
    "Batched",
    "Event",
    "Failures",
    "Finished",
    "Job",
    "Opened",
    "Passed",
    "Seat",
    "Stage",
    "Step",
    "Supervisor",
    "Watch",
    "is_batched",
    "run",
]

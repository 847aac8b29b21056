"""Runs items through stages: queues, slots, devices, worker processes, order, failures. Knows nothing of images.

stages            what it runs: steps, batched stages, which a model on slots carries out, items on their way
batching          the ring of slots of one batched stage
device            the two threads of a device
flow              items through stages within one process
outbox            results on their way to the collector
local             a run within this process
at_hand           batches and items in the calling thread
messages          what parent and worker processes tell each other
worker            a worker process
worker_handle     the parent's handle of one worker
tasks             what is still to be done
supervisor        a run in worker processes: crashes, hangs, retries
"""

from fgfast.runner.at_hand import compute, filled_slot, run_batch, run_item, warm_up
from fgfast.runner.local import run
from fgfast.runner.messages import Handoff, Job, JobRuntime, WorkerSpec
from fgfast.runner.stages import (
    BatchedStage,
    Event,
    Failures,
    Finished,
    SlotModel,
    Stage,
    Step,
    Watch,
)
from fgfast.runner.supervisor import DEADLINE, Supervisor

__all__ = [
    "DEADLINE",
    "BatchedStage",
    "Event",
    "Failures",
    "Finished",
    "Handoff",
    "Job",
    "JobRuntime",
    "SlotModel",
    "Stage",
    "Step",
    "Supervisor",
    "Watch",
    "WorkerSpec",
    "compute",
    "filled_slot",
    "run",
    "run_batch",
    "run_item",
    "warm_up",
]

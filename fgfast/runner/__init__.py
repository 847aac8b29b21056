"""Runs items through stages: queues, slots, devices, worker processes, order, failures. Knows nothing of images.

stages            the stages: steps for one item, batched stages for a model on slots; items in flight
batching          the ring of slots of one batched stage
device            the two threads of a device
pool              the threads of a flow; who sleeps until what, and who wakes him
flow              items through stages within one process
queues            items to do, results to collect
local             runs within this process, without workers
ordered           a run within this process that yields its items in order
messages          the protocol between the parent and its worker processes
worker            a worker process
worker_handle     the parent's handle of one worker
supervisor        a run in worker processes: crashes, hangs, retries
"""

from fgfast.runner.local import compute, filled_slot, run, run_batch, run_item, warm_up
from fgfast.runner.messages import Handoff, Job, JobRuntime, WorkerSpec
from fgfast.runner.ordered import in_order
from fgfast.runner.stages import BatchedStage, Event, Failures, Finished, SlotModel, Stage, Step, Watch
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
    "in_order",
    "run",
    "run_batch",
    "run_item",
    "warm_up",
]

"""What to run first on a GPU, about 20 minutes: the choices that nobody could measure before, part by part.

    python bench/first_gpu.py --save                 # everything on cuda:0, the result in bench/results
    python bench/first_gpu.py rates attention forms  # some parts

Each part is measured by itself: one that fails is a note in the result, and the others still run. `--device cpu
--small` runs every part in small on the CPU; the figures mean nothing, but a mistake in this file shows.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fgfast import processes
from fgfast.bench import job
from fgfast.bench.result import Result, Row, envelope, save
from fgfast.methods import ModelSpec
from fgfast.terminal import say
from fgfast.writing import scratch_folder

_ROUNDS = 10
# (batch, heads, tokens, head size) of the attentions, and the shape of the mask: SAM ViT-L's whole image and windows,
# and the windows of Swin-B's first and third stage at 800x1344, each for a batch of 4 images.
_ATTENTION = {
    "SAM-L, whole image, folded": ((4, 16, 4096, 192), None),
    "SAM-L, whole image, plain": ((4, 16, 4096, 64), None),
    "SAM-L, windows, folded": ((100, 16, 196, 96), None),
    "Swin-B, stage 1, one mask": ((5568, 4, 49, 32), (1, 4, 49, 49)),
    "Swin-B, stage 1, a mask per window": ((5264, 4, 49, 32), (5264, 4, 49, 49)),
    "Swin-B, stage 3, a mask per window": ((308, 16, 49, 32), (308, 16, 49, 49)),
}


class Where(NamedTuple):
    """Where and how large everything is measured.

    Attributes:
        device: as torch names it.
        small: whether everything is small enough for a CPU.
    """

    device: str
    small: bool

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    def synchronize(self) -> None:
        """Wait for the GPU."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], Any], rounds: int = _ROUNDS) -> float:
        """Return the seconds per call, after one that is not timed."""
        self.synchronize()
        start = time.perf_counter()
        for _ in range(rounds):
            call()
        self.synchronize()
        return (time.perf_counter() - start) / rounds


def rates(where: Where) -> Iterator[Row]:
    """The peak of products, and memory, in the models' own shapes; docs/performance.md assumes what a GPU reaches."""
    from fgfast.bench.roofline import measure

    model = "sam_vit_b" if where.small else "sam_vit_l"
    roof = measure([model, "detic"], where.device, "bf16", batch=1 if where.small else 4)
    for product in roof.products:
        yield Row(product.name, product.flops / 1e12, "TFLOP/s", "higher")
    yield Row("memory", roof.bandwidth / 1e12, "TB/s", "higher")


def attention(where: Where) -> Iterator[Row]:
    """PyTorch's attention in the models' shapes with and without cuDNN's: the first call, later ones, the kernel."""
    for name, (shape, mask_shape) in _ATTENTION.items():
        cut = (1, shape[1], min(shape[2], 196), shape[3]) if where.small else shape
        q = torch.randn(cut, device=where.device, dtype=torch.bfloat16)
        mask = None if mask_shape is None else torch.randn(49, 49, device=where.device, dtype=torch.bfloat16)
        if mask is not None and mask_shape is not None:
            mask = mask.expand(1 if mask_shape[0] == 1 else cut[0], cut[1], 49, 49).contiguous()
        attend = partial(scaled_dot_product_attention, q, q, q, attn_mask=mask)
        for cudnn in (False, True):
            torch.backends.cuda.enable_cudnn_sdp(cudnn)
            first = where.seconds(attend, 1)
            how = f"cuDNN {'allowed' if cudnn else 'off'}, {_kernel(where, attend)}"
            yield Row("first call", first, "s", "lower", f"{name}, {how}")
            yield Row("later calls", 1e3 * where.seconds(attend), "ms", "lower", f"{name}, {how}")
    torch.backends.cuda.enable_cudnn_sdp(False)


def _kernel(where: Where, call: Callable[[], Tensor]) -> str:
    """Return the name of the kernel in which a call spends most of its time."""
    kind = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kind.CUDA if where.cuda else kind.CPU]) as profile:
        call()
        where.synchronize()
    spent = "self_device_time_total" if where.cuda else "self_cpu_time_total"
    return str(max(profile.key_averages(), key=lambda event: getattr(event, spent)).key)[:60]


def relative(where: Where) -> Iterator[Row]:
    """SAM's attention with relative positions: every implementation that this device has, against float32."""
    from fgfast.models.sam.attention import folded, masked

    contenders: dict[str, Callable[..., Tensor]] = {"folded": folded}
    if where.cuda:
        from fgfast.models.sam.fused_attention import fused

        contenders["fused"] = fused
    for side, groups, heads in ((14, 2, 2),) if where.small else ((64, 4, 16), (14, 100, 16)):
        draw = torch.Generator("cpu").manual_seed(0)
        q, k, v = torch.randn(3, groups, heads, side * side, 64, generator=draw).to(where.device)
        tables = (0.3 * torch.randn(2, 2 * side - 1, 64, generator=draw)).to(where.device)
        half = [x.bfloat16() for x in (q, k, v)]
        # In float32 on the same rounded numbers, so that only the arithmetic differs.
        expected = masked(*(x[:1].float() for x in half), *tables)
        for name, attend in contenders.items():
            group = f"side {side}, {groups} windows, {name}"
            error = (attend(*half, *tables)[:1].float() - expected).abs().max().item()
            yield Row("largest difference from float32", error, "", "lower", group)
            yield Row("time", 1e3 * where.seconds(partial(attend, *half, *tables)), "ms", "lower", group)


def exactness(where: Where) -> Iterator[Row]:
    """SAM's encoder (ViT-B) in float32 on the device against the CPU, with TensorFloat-32 off and on."""
    from fgfast.backends.torch_flags import set_flags
    from fgfast.models.sam.build import build_sam
    from fgfast.models.sam.sessions import sam_in_torch

    generator = torch.Generator().manual_seed(0)
    model, side = ("sam_tiny256", 256) if where.small else ("sam_vit_b", 1024)
    inputs = {"pixels": torch.randint(0, 256, (1, side, side, 3), dtype=torch.uint8, generator=generator)}
    inputs["sizes"] = torch.tensor([[side, side * 3 // 4]])

    def embeddings(device: str) -> Tensor:
        spec = ModelSpec(model, "random:0", "fp32", device, batch=1)
        session = sam_in_torch(build_sam(spec)).encoder
        return session.run({name: tensor.to(device) for name, tensor in inputs.items()})["embeddings"].cpu()

    set_flags()
    expected = embeddings("cpu")
    yield Row("off by, TensorFloat-32 off", (embeddings(where.device) - expected).abs().max().item(), "", "lower")
    if where.cuda:
        torch.backends.cudnn.conv.fp32_precision = "tf32"
        yield Row("off by, convolutions in TensorFloat-32", (embeddings(where.device) - expected).abs().max().item())
        set_flags()


def forms(where: Where) -> Iterator[Row]:
    """Every form of both models in PyTorch, each in a process of its own: seconds, and what the first batch takes."""
    from fgfast.backends.torch import FORMS
    from fgfast.models.serving import speed

    models = ("sam_vit_b",) if where.small else ("sam_vit_l", "detic")
    failed = []
    for model in models:
        for form in FORMS if where.cuda else ("eager",):
            spec = ModelSpec(
                model,
                "random:0",
                "bf16" if where.cuda else "fp32",  # most CPUs emulate bf16
                where.device,
                batch=1 if where.small else 4,
                form=form,
            )
            trial = speed.apart(spec)
            if trial.failed:
                failed.append(f"{model}, {form}: {trial.failed}")
                continue
            yield Row("time per image", 1e3 * trial.seconds, "ms", "lower", f"{model}, {form}")
            yield Row("first batch", trial.ready, "s", "lower", f"{model}, {form}")
    if failed:
        raise RuntimeError("; ".join(failed))


def recording(where: Where) -> Iterator[Row]:
    """What a failed recording leaves behind, in a process of its own: the current stream, and the cached memory."""
    if not where.cuda:
        return
    done = processes.run_python(_FAILED_RECORDING.replace("DEVICE", where.device), 300)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    for name, value in json.loads(done.stdout.splitlines()[-1]).items():
        yield Row(name, float(value))


# 1 means yes.
_FAILED_RECORDING = """
import json, tempfile, os
os.environ["FGFAST_CACHE"] = os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp()
import torch
from fgfast.backends import recording
from fgfast.errors import RecordingFailedError
device, found = torch.device("DEVICE"), {}
x = torch.ones(4, device=device)
try:
    recording.record("a sum that is read back", lambda: x * x.sum().item(), recording.Pool(device), warm_up=1)
    found["raised"] = False
except RecordingFailedError:
    found["raised"] = True
found["noted"] = bool(recording.refusal("a sum that is read back", device))
found["the current stream is the default one"] = torch.cuda.current_stream(device) == torch.cuda.default_stream(device)
free = torch.cuda.mem_get_info(device)[0]
blocks = [torch.empty(free // 3, dtype=torch.uint8, device=device) for _ in range(2)]
del blocks
try:
    torch.empty(int(free * 0.8), dtype=torch.uint8, device=device)
    found["cached memory is given back"] = True
except torch.OutOfMemoryError:
    found["cached memory is given back"] = False
print(json.dumps({name: int(value) for name, value in found.items()}))
"""


def whole(where: Where) -> Iterator[Row]:
    """The whole job from files to files: one worker and two on the device, and several numbers of threads."""
    count = 4 if where.small else 1500
    made = job.Job(segmenter="sam_vit_b", detector="annotations") if where.small else job.Job(segmenter="sam_vit_l")
    with scratch_folder("fgfast-first-gpu-") as folder:
        images = job.make_images(folder / "images", count)
        for workers in (1,) if where.small else (1, 2):
            for threads in (2,) if where.small else (8, 16, 64):
                placed = job.on(made, (where.device,) * workers, "auto" if where.small else "replicate")
                ran = job.run(replace(placed, cpu_threads=threads), images, folder / "out")
                group = f"{workers} workers, {threads} threads"
                yield Row("rate", ran.rate, "images/s", "higher", group)
                yield Row("memory of the GPU", sum(ran.gpu_mib), "MiB", "lower", group)


PARTS = {part.__name__: part for part in (rates, attention, relative, exactness, forms, recording, whole)}


def measure(names: tuple[str, ...], where: Where) -> Result:
    """Measure parts by name; what fails becomes a note."""
    rows: list[Row] = []
    notes: list[str] = []
    for name in names or tuple(PARTS):
        try:
            for row in PARTS[name](where):
                rows.append(Row(row.name, row.value, row.unit, row.better, f"{name}: {row.group}".rstrip(": ")))
                say(f"{rows[-1].key}: {row.value:.4g} {row.unit}")
        except Exception as error:
            say(traceback.format_exc())
            notes.append(f"{name} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    gpu = torch.cuda.get_device_name(where.device) if where.cuda else "a CPU, in small: the figures mean nothing"
    return envelope("first-gpu", rows, title=f"First measurements on {gpu}", rounds=1, notes=notes)


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--device", default="cuda:0", show_default=True, help="The device, as PyTorch names it.")
@click.option("--small", is_flag=True, help="Everything in small, to try this script on a CPU.")
@click.option("--save", "saves", is_flag=True, help="Also write the result into bench/results.")
def main(parts: tuple[str, ...], device: str, small: bool, saves: bool) -> None:
    """Measure on a GPU what could not be measured before; without PARTS everything."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise click.UsageError(
            f"there is no GPU here that PyTorch could use as {device} (fgfast doctor says why); to try this script "
            "without one: --device cpu --small"
        )
    result = measure(parts, Where(device, small))
    say(json.dumps(result["notes"], indent=2))
    if saves:
        say(str(save(result)))


if __name__ == "__main__":
    main()

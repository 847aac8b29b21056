"""The windows of Detic's maps: bounded memory for images of many sizes, and what graphs refer to stays."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Iterator
from functools import partial

import pytest

torch = pytest.importorskip("torch")

from fgfast.methods import ModelSpec  # noqa: E402
from fgfast.models.detic import swin as swin_module  # noqa: E402
from fgfast.models.detic import windows  # noqa: E402
from fgfast.models.detic.build import build_detic  # noqa: E402
from fgfast.models.detic.model import Detic  # noqa: E402
from fgfast.models.detic.split import SplitDetic  # noqa: E402
from fgfast.models.detic.swin import Swin  # noqa: E402
from fgfast.models.detic.windows import RecentPlans, WindowPlan  # noqa: E402
from fgfast.records import Size  # noqa: E402

BOUND = 1 << 20


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small maps gain nothing from threads, which wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def nano() -> Detic:
    return build_detic(ModelSpec("detic_nano", "random:0"))


@pytest.fixture
def swin(nano: Detic) -> Swin:
    nano.backbone.bottom_up.recent = RecentPlans()
    return nano.backbone.bottom_up


def run(swin: Swin, size: Size, batch: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(size.height * 10_000 + size.width)
    with torch.inference_mode():
        return swin(torch.randn(batch, 3, *size, generator=generator), torch.tensor([list(size)] * batch))


def test_images_of_many_sizes_keep_no_more_than_the_bound(swin: Swin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every plan used to stay with the model: 1.4 GB for batches of up to four on 20 canvases of 800 x 1344."""
    monkeypatch.setattr(windows, "PLAN_BYTES", BOUND, raising=False)
    alive: weakref.WeakSet[WindowPlan] = weakref.WeakSet()
    make = WindowPlan.__init__

    def noted(plan: WindowPlan, *sizes: int) -> None:
        make(plan, *sizes)
        alive.add(plan)

    monkeypatch.setattr(WindowPlan, "__init__", noted)
    sizes = [Size(32 * height, 32 * width) for height in range(3, 8) for width in range(3, 8)]
    first, held = run(swin, sizes[0]), []
    for n, size in enumerate(sizes):
        run(swin, size, 1 + n % 4)
        held.append(sum(buffer.nbytes for plan in alive for buffer in plan.buffers()))
    assert BOUND / 2 < max(held) <= BOUND, held
    for was, now in zip(first, run(swin, sizes[0]), strict=True):
        torch.testing.assert_close(now, was, rtol=0, atol=0)  # made anew, they are the same


def test_the_least_recently_used_go_first() -> None:
    plans: RecentPlans[torch.nn.Module] = RecentPlans(most=250)
    made: list[str] = []

    def make(key: str) -> torch.nn.Module:
        made.append(key)
        plan = torch.nn.Module()
        plan.register_buffer("rows", torch.zeros(1000 if key == "large" else 100, dtype=torch.uint8))
        return plan

    for key in ("a", "b", "a", "c", "a", "b"):
        plans.get(key, partial(make, key))
    assert made == ["a", "b", "c", "b"] and plans.held == 200
    plans.get("large", partial(make, "large"))
    assert plans.held == 1000  # one is always kept
    assert copy.deepcopy(plans).held == 0 and copy.deepcopy(plans).most == 250


def test_threads_share_the_plans(swin: Swin) -> None:
    wanted, errors = run(swin, Size(96, 128)), []
    swin.recent.most = 1  # every call drops what the others have made

    def work(size: Size) -> None:
        for _ in range(5):
            found = run(swin, size)
            if size == (96, 128) and not all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True)):
                errors.append(size)

    threads = [threading.Thread(target=work, args=(size,)) for size in (Size(96, 128), Size(128, 96), Size(96, 128))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_what_a_graph_of_fixed_shape_refers_to_stays_until_it_is_closed(nano: Detic, swin: Swin) -> None:
    """A recorded graph reads the tables at their addresses, whatever has run eagerly in between."""
    swin.recent.most = 1
    one, same, other = (SplitDetic(nano, Size(96, width), 2, "eager") for width in (128, 128, 160))
    addresses = {buffer.data_ptr() for plan in swin.plans.values() for buffer in plan.buffers()}
    for size in (Size(96, 128), Size(160, 96), Size(96, 160)):
        run(swin, size, 2)
    assert {buffer.data_ptr() for plan in swin.plans.values() for buffer in plan.buffers()} == addresses
    kept = set(swin.plans)
    one.close()
    one.close()
    assert set(swin.plans) == kept  # `same` refers to them
    same.close()
    assert set(swin.plans) < kept
    other.close()
    assert not len(swin.plans)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_gpu_gets_masks_that_attention_takes_as_they_are(dtype: torch.dtype) -> None:
    """The same numbers; strides in multiples of 8, without which PyTorch would copy the mask in every block."""
    generator = torch.Generator().manual_seed(0)
    bias = torch.randn(1, 3, 49, 49, generator=generator)
    mask = windows.apart(torch.randint(0, 3, (5, 49), generator=generator))[:, None]
    for part in (mask, None):
        wanted = windows.summed(bias, part, dtype)
        found = windows.spaced(bias, part, dtype)
        assert torch.equal(found, wanted) and found.dtype == wanted.dtype == dtype
        elsewhere = [None if n is None else n.to("meta") for n in (bias, part)]  # in place of a GPU
        for one in (found, windows.summed(*elsewhere, dtype)):
            assert one.shape == wanted.shape and one.stride(3) == 1
            assert not any(stride % 8 for stride in one.stride()[:3])


def test_a_gpus_masks_change_nothing(nano: Detic, swin: Swin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of windows with images that do not fill the canvas."""
    size = torch.tensor([[96, 64], [64, 128]])
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = swin(images, size)
        monkeypatch.setattr(swin_module, "summed", windows.spaced)
        for was, now in zip(wanted, swin(images, size), strict=True):
            torch.testing.assert_close(now, was, rtol=0, atol=0)

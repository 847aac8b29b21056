"""PyTorch's flags in every process that computes: no TensorFloat-32, no cuDNN attention unless a form asks for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models need the extra models")

from fgfast import graphs  # noqa: E402
from fgfast.backends import torch_flags  # noqa: E402
from fgfast.backends.torch import TorchSession  # noqa: E402
from fgfast.bench import roofline  # noqa: E402
from fgfast.doctor import checks  # noqa: E402
from fgfast.methods import ModelSpec  # noqa: E402
from fgfast.models.grounding_dino import checkpoint  # noqa: E402
from fgfast.models.sam.build import build_sam, sam_state  # noqa: E402

TINY = ModelSpec("sam_tiny256", "random:1")
BACKENDS: Any = torch.backends


class Graph(torch.nn.Module):
    """Says whether cuDNN's attention is allowed while it runs."""

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        allowed = torch.tensor([[float(torch.backends.cuda.cudnn_sdp_enabled())]])
        return torch.zeros(1, 1, 64, 64), allowed, allowed


def session() -> TorchSession:
    return TorchSession(Graph(), graphs.sam_mask_decoder(256))


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    """The flags of a new process, in which a user has also asked for faster products."""
    BACKENDS.cudnn.conv.fp32_precision = BACKENDS.cudnn.rnn.fp32_precision = "tf32"
    torch.set_float32_matmul_precision("medium")
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch_flags.set_flags()


def exact() -> bool:
    """Whether float32 is float32 for all that reads the flags; reading one kind of flag must not raise."""
    operators = BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn, BACKENDS.mkldnn.matmul
    old = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    return not old and all(one.fp32_precision == "ieee" for one in operators)


@pytest.mark.parametrize(
    "computes",
    [
        session,
        lambda: build_sam(TINY),
        lambda: checkpoint._check("grounding_dino_tiny"),  # before the network is built, for an export as well
        lambda: sam_state(TINY),  # the reference's weights in `fgfast bench`
        lambda: checks._matmul("cpu"),
        lambda: roofline.measure((), "cpu", "fp32", min_seconds=1e-6),
    ],
)
def test_float32_is_float32_wherever_something_computes(computes: Callable[[], object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        computes()
        assert exact()
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_what_was_set_for_all_operators_does_not_come_back() -> None:
    try:
        BACKENDS.fp32_precision = "tf32"
        torch_flags.set_flags()
        assert exact()
    finally:
        BACKENDS.fp32_precision = "none"


def test_the_flags_of_an_older_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch before 2.9 has `allow_tf32` alone; its backends are a fake."""
    cuda = SimpleNamespace(
        matmul=SimpleNamespace(allow_tf32=True), cudnn_sdp_enabled=lambda: False, enable_cudnn_sdp=lambda on: None
    )
    old = SimpleNamespace(cuda=cuda, cudnn=SimpleNamespace(allow_tf32=True))
    monkeypatch.setattr(torch_flags, "_backends", old)
    torch_flags.set_flags()
    assert not old.cudnn.allow_tf32
    assert not cuda.matmul.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


def test_cudnn_s_attention_is_allowed_within_the_form_that_asks_for_it() -> None:
    inputs = {
        "embeddings": torch.zeros(1, 256, 16, 16),
        "image_index": torch.zeros(1, dtype=torch.int64),
        "boxes": torch.zeros(1, 4),
    }
    plain, form = session(), session()
    form.form = "eager+cudnn"  # the forms that ask for it are recorded, on a GPU
    assert [float(one.run(inputs)["quality"]) for one in (plain, form, plain)] == [0, 1, 0]
    assert not torch.backends.cuda.cudnn_sdp_enabled()

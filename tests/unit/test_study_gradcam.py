"""Grad-CAM and input gradients of a study's backbones."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="models of a study need torch")

from fgfast.studies import torchvision_shim  # noqa: E402

torchvision_shim.declare()
pytest.importorskip("timm", reason="models of a study need timm")

from study_models import SMALL, drawn, made  # noqa: E402

from fgfast.studies import gradcam, layers, masking  # noqa: E402
from fgfast.studies.cell import Strategy  # noqa: E402

CLASSES = torch.tensor([1, 3])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SMALL)
def test_maps_are_pytorch_grad_cams_before_it_stretches_them(kind: str) -> None:
    pytest.importorskip("pytorch_grad_cam", reason="the other way to a map is pytorch-grad-cam's")
    import cv2
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = made(kind)
    x, mask = drawn(model)
    ours = gradcam.maps(model, x, mask, CLASSES, Strategy()).numpy()
    _, layer = layers.target_layer(model)
    cam = GradCAM(model.timm, [layer], reshape_transform=lambda t: layers.as_map(model, t, tuple(x.shape[-2:])))
    theirs = cam(x, targets=[ClassifierOutputTarget(int(c)) for c in CLASSES])
    side = model.cfg.image_size[0]
    for one, other in zip(ours, theirs, strict=True):
        stretched = (one - one.min()) / (1e-7 + (one - one.min()).max())
        large = cv2.resize(stretched.astype(np.float32), (side, side))
        large = (large - large.min()) / (1e-7 + (large - large.min()).max())
        assert np.allclose(large, other, atol=1e-3)


@pytest.mark.parametrize("kind", SMALL)
def test_late_masked_models_lie_inside_by_construction(kind: str) -> None:
    model = made(kind)
    x, mask = drawn(model)
    strategy = Strategy("late", pooling="fg")
    assert gradcam.by_construction(model, strategy)
    assert not gradcam.by_construction(model, Strategy())
    found = gradcam.maps(model, x, mask, CLASSES, strategy)
    keep = masking.cells(mask, tuple(found.shape[-2:]), strategy.share)[:, 0]
    assert not (found * (1 - keep)).any()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frozen_weights_have_maps_too() -> None:
    model = made("resnet")
    x, mask = drawn(model)
    trained = gradcam.maps(model, x, mask, CLASSES, Strategy())
    assert torch.equal(gradcam.maps(model.requires_grad_(False), x, mask, CLASSES, Strategy()), trained)


def test_input_gradients_of_early_masking_are_inside() -> None:
    model = made("vit")
    x, mask = drawn(model)
    early = gradcam.looks(gradcam.input_gradients(model, x, mask, CLASSES, Strategy("early")), mask)
    assert early.inside.tolist() == [1.0, 1.0]
    none = gradcam.looks(gradcam.input_gradients(model, x, mask, CLASSES, Strategy()), mask)
    assert none.inside.max() < 1
    stays, change = gradcam.repainted(model, x, mask, Strategy("early"), 2)
    assert stays.all()
    assert not change.any()
    assert gradcam.repainted(model, x, mask, Strategy(), 2)[1].all()


def test_looks_of_drawn_maps() -> None:
    mask = torch.zeros(3, 1, 8, 8)
    mask[:, :, :4] = 1
    found = torch.zeros(3, 8, 8)
    found[0, 1, 1], found[0, 6, 6] = 3, 1  # three quarters inside, the highest there
    found[1, 6, 6] = 2
    looks = gradcam.looks(found, mask)
    assert looks.inside[:2].tolist() == [0.75, 0.0]
    assert looks.inside[2].isnan()
    assert looks.hit.tolist() == [True, False, False]
    assert looks.evidence.tolist() == [True, True, False]
    assert looks.without_evidence == pytest.approx(1 / 3)
    assert looks.area.tolist() == [0.5, 0.5, 0.5]

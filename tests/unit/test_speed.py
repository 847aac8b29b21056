"""What is measured on a GPU, and what is chosen by it. The GPU is a name, its figures are given."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models need the extra models")

from fgfast.config import Settings  # noqa: E402
from fgfast.errors import GraphError, UsageError  # noqa: E402
from fgfast.methods import ModelSpec  # noqa: E402
from fgfast.models.sam import sessions as sam_sessions  # noqa: E402
from fgfast.models.serving import backend, chosen, forms, speed  # noqa: E402
from fgfast.models.serving.speed import Trial  # noqa: E402
from fgfast.pipeline import choices  # noqa: E402

SPEC = ModelSpec("sam_vit_l", "random:0", "bf16", "cuda:0")
TINY = ModelSpec("sam_tiny256", "random:1", form="eager")
# Seconds per image, and of the first batch.
FIGURES = {
    "eager": Trial(0.020, 1.0),
    "recorded": Trial(0.016, 2.0),
    "recorded+cudnn": Trial(0.015, 8.0),
    "compiled+recorded": Trial(0.012, 62.0),
    "compiled+recorded+cudnn": Trial(0.011, 68.0),
}


class Gpu:
    """A GPU with these figures, and what was measured on it."""

    def __init__(self) -> None:
        self.figures: dict[str, Trial] = dict(FIGURES)
        self.measured: list[str] = []
        self.capability = (8, 6)

    def apart(self, spec: ModelSpec) -> Trial:
        way = str(spec.form if spec.backend == "torch" else spec.backend)
        self.measured.append(way)
        return self.figures[way]


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    found = Gpu()
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path))
    monkeypatch.setattr(speed, "apart", found.apart)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: found.capability)
    return found


class TestForms:
    def test_a_short_run_is_recorded_and_not_compiled(self, gpu: Gpu) -> None:
        form = forms.choose(replace(SPEC, images=6000))
        assert (form.name, form.seconds) == ("recorded", 0.016)
        assert gpu.measured == ["eager", "recorded"]
        assert "per image: eager 20 ms, recorded 16 ms" in form.why
        assert "compiling was not tried: 6,000 images take 96 s, and it pays from 180 s on" in form.why

    def test_a_long_run_is_compiled(self, gpu: Gpu) -> None:
        form = forms.choose(replace(SPEC, images=100_000))
        assert form.name == "compiled+recorded"
        assert gpu.measured == ["eager", "recorded", "compiled+recorded", "compiled+recorded"], "the second finds it"
        assert "compiling takes 60 s in each process and saves 400 s over 100,000 images" in form.why

    def test_compiling_that_does_not_pay_is_not_used_though_it_was_measured(self, gpu: Gpu) -> None:
        gpu.figures["compiled+recorded"] = Trial(0.0155, 62.0)
        form = forms.choose(replace(SPEC, images=100_000))
        assert form.name == "recorded"
        assert "takes 60 s in each process and saves 50 s over 100,000 images" in form.why
        assert forms.choose(replace(SPEC, images=200_000)).name == "compiled+recorded"

    def test_each_shape_is_compiled(self, gpu: Gpu) -> None:
        detic = replace(SPEC, name="detic", images=100_000)
        gpu.figures["compiled+recorded"] = Trial(0.0128, 62.0)
        assert forms.choose(detic).name == "recorded", "104 s saved, and two shapes take 120"
        assert forms.choose(replace(SPEC, images=100_000)).name == "compiled+recorded"

    def test_a_form_with_canvases_of_many_sizes_does_less_work(self, gpu: Gpu) -> None:
        """All are timed on the largest canvas; the mean photograph needs 0.85 of it where there are seven canvases or
        its own, and all of it where there are two."""
        detic = replace(SPEC, name="detic", images=10_000_000)
        gpu.figures["compiled+recorded"] = Trial(0.015, 62.0)
        form = forms.choose(detic)
        assert form.name == "recorded" and form.seconds == pytest.approx(0.016 * 0.865)
        assert "per image of the mean size: eager 17 ms, recorded 13.8 ms, compiled+recorded 15 ms" in form.why
        assert forms.choose(replace(SPEC, images=10_000_000)).name == "compiled+recorded", "SAM has one shape"
        assert forms.choose(detic, measure=False).seconds == form.seconds, "what is stored is not weighed twice"

    def test_nothing_is_compiled_for_a_number_of_images_that_is_not_known(self, gpu: Gpu) -> None:
        form = forms.choose(SPEC)
        assert form.name == "recorded"
        assert "compiled+recorded" not in gpu.measured
        assert "not compiled: the number of images is not known" in form.why

    def test_cudnn_s_attention_is_measured_where_pytorch_prefers_it(self, gpu: Gpu) -> None:
        gpu.capability = (9, 0)
        assert forms.choose(replace(SPEC, images=6000)).name == "recorded+cudnn"
        assert forms.choose(replace(SPEC, images=100_000)).name == "compiled+recorded+cudnn"
        gpu.measured.clear()
        forms.choose(replace(SPEC, precision="fp32", images=6000))
        assert gpu.measured == ["eager", "recorded"]

    def test_models_without_fixed_shapes_and_cpus_are_eager_without_a_measurement(self, gpu: Gpu) -> None:
        assert forms.choose(replace(SPEC, name="grounding_dino_tiny")).name == "eager"
        assert forms.choose(replace(SPEC, device="cpu")).name == "eager"
        assert forms.form_of(replace(SPEC, form="compiled")) == "compiled"
        assert gpu.measured == []

    def test_eager_is_kept_where_another_form_is_hardly_faster(self, gpu: Gpu) -> None:
        gpu.figures["recorded"] = Trial(0.0199, 2.0)
        assert forms.choose(replace(SPEC, images=6000)).name == "eager"

    def test_a_form_that_fails_is_logged_once_and_not_tried_again(
        self, gpu: Gpu, caplog: pytest.LogCaptureFixture
    ) -> None:
        gpu.figures["recorded"] = Trial(failed="operation not permitted when stream is capturing")
        with caplog.at_level(logging.WARNING):
            for again in (False, True):
                form = forms.choose(replace(SPEC, images=100_000), again=again)
                assert form.name == "eager"
                assert "recorded cannot be used here (operation not permitted" in form.why
        assert gpu.measured == ["eager", "recorded"]
        assert caplog.text.count("cannot run in torch recorded here: operation not permitted") == 1

    def test_what_the_model_chose_is_said_and_another_implementation_is_measured_anew(
        self, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = replace(SPEC, images=6000)
        gpu.figures["recorded"] = replace(FIGURES["recorded"], chosen="SAM's attention is Triton's fused kernel")
        assert forms.choose(spec).why.endswith("SAM's attention is Triton's fused kernel")
        assert gpu.measured == ["eager", "recorded"]
        monkeypatch.setattr(sam_sessions, "variant", lambda spec: "PyTorch's attention, no C compiler")
        forms.choose(spec)
        assert gpu.measured == ["eager", "recorded"] * 2

    def test_a_lack_of_memory_may_pass(self, gpu: Gpu) -> None:
        gpu.figures["recorded"] = Trial(failed="out of memory", passing=True)
        assert forms.choose(replace(SPEC, images=6000)).name == "eager"
        gpu.figures["recorded"] = FIGURES["recorded"]
        assert forms.choose(replace(SPEC, images=6000)).name == "eager", "workers do not measure what the plan has"
        assert forms.choose(replace(SPEC, images=6000), again=True).name == "recorded"
        gpu.figures["eager"] = Trial(failed="out of memory", passing=True)
        form = forms.choose(replace(SPEC, batch=64, images=6000))
        assert (form.name, form.why) == ("eager", "not measured: out of memory")

    def test_a_gpu_that_cannot_compute_the_model_is_an_error(self, gpu: Gpu) -> None:
        gpu.figures["eager"] = Trial(failed="CUDA error: no kernel image is available for execution on the device")
        with pytest.raises(UsageError, match=r"sam_vit_l cannot be computed in PyTorch on cuda:0: .* no kernel image"):
            forms.choose(SPEC)
        assert gpu.measured == ["eager"]

    def test_workers_choose_as_the_plan_did(self, gpu: Gpu) -> None:
        spec = replace(SPEC, images=100_000)
        (reason,) = forms.reasons([spec, replace(spec, device="cuda:1")])
        assert reason.startswith("sam_vit_l in PyTorch compiled+recorded: measured on this machine")
        gpu.measured.clear()
        assert forms.form_of(spec) == "compiled+recorded"
        assert gpu.measured == []

    def test_a_dry_run_measures_nothing(self, gpu: Gpu) -> None:
        assert "a run measures first" in forms.reasons([SPEC], measure=False)[0]
        assert gpu.measured == []


class TestTrials:
    def test_a_fault_of_the_program_is_raised(self) -> None:
        with pytest.raises(AttributeError, match="precison"):
            speed.trial("fake_sessions:is_mistyped", TINY)

    def test_what_the_device_cannot_do_is_a_failure(self) -> None:
        failed = speed.trial("fake_sessions:has_no_kernel", TINY)
        assert "no kernel image is available" in failed.failed
        assert not failed.passing
        assert speed.trial("fake_sessions:lacks_memory", TINY).passing

    def test_a_backend_of_exported_graphs_may_be_refused(self) -> None:
        assert "could not start" in speed.trial("fake_sessions:is_refused", replace(TINY, backend="onnxruntime")).failed
        with pytest.raises(UsageError, match="could not start"):
            speed.trial("fake_sessions:is_refused", TINY)

    def test_times_are_those_of_images_and_choices_are_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chosen, "_SENTENCES", {})
        for _ in range(2):
            chosen.say("the attention is PyTorch's")
        found = speed.trial("fake_sessions:timed", replace(TINY, batch=2))
        assert 0 < found.seconds < found.ready
        assert found.chosen == "the attention is PyTorch's"

    @pytest.mark.full
    def test_a_process_that_crashes_costs_nothing(self) -> None:
        assert "ended its process" in speed.apart(TINY, "fake_sessions:crashes").failed

    def test_a_model_is_timed_in_a_process_of_its_own(self) -> None:
        assert speed.apart(TINY, "fake_sessions:timed").seconds > 0


class TestBackends:
    @pytest.fixture(autouse=True)
    def exported(self, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
        gpu.figures |= {"tensorrt": Trial(0.009, 1.0), "onnxruntime": Trial(0.030, 1.0)}
        monkeypatch.setattr(backend, "_digest", lambda spec: "abc")
        monkeypatch.setattr(backend, "check", self.check)
        self.refused: dict[str, str] = {}

    def check(self, specs: Any) -> None:
        if why := self.refused.get(specs[0].backend):
            raise GraphError(why)

    def test_the_fastest_is_taken_with_the_figures(self, gpu: Gpu) -> None:
        chosen, why = backend.choose_backend([replace(SPEC, images=6000)], "auto")
        assert chosen == "tensorrt"
        assert why == "measured on this machine: torch 16 ms, tensorrt 9 ms, onnxruntime 30 ms per image"

    def test_no_exported_graph_is_preferred_unmeasured(self, gpu: Gpu) -> None:
        self.refused = {"tensorrt": "no engine"}
        assert backend.choose_backend([replace(SPEC, images=6000)], "auto")[0] == "torch"
        gpu.figures["tensorrt"], self.refused = Trial(0.018, 1.0), {}
        assert backend.choose_backend([replace(SPEC, images=6000)], "auto")[0] == "torch"

    def test_one_that_fails_is_not_taken_and_says_why(self, gpu: Gpu) -> None:
        gpu.figures["tensorrt"] = Trial(failed="its process ended")
        gpu.figures["onnxruntime"] = Trial(failed="no kernel on the GPU for pool (NonMaxSuppression)")
        chosen, why = backend.choose_backend([replace(SPEC, images=6000)], "auto")
        assert chosen == "torch"
        assert "tensorrt cannot be used here (its process ended)" in why
        assert "onnxruntime cannot be used here (no kernel on the GPU for pool" in why

    def test_where_none_can_compute_the_error_has_all_reasons(self, gpu: Gpu) -> None:
        gpu.figures = {way: Trial(failed=f"{way} broke") for way in (*FIGURES, "tensorrt", "onnxruntime")}
        with pytest.raises(UsageError, match=r"no backend .* on cuda:0: torch .*eager broke.*onnxruntime broke"):
            backend.choose_backend([SPEC], "auto")

    def test_nothing_is_measured_for_a_dry_run(self, gpu: Gpu) -> None:
        chosen, why = backend.choose_backend([SPEC], "auto", measure=False)
        assert (chosen, "a run measures first" in why) == ("torch", True)
        assert gpu.measured == []


def test_the_number_of_images_of_each_device_reaches_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ModelSpec] = []

    def choose_backend(specs: Any, asked: str, measure: bool) -> tuple[str, str]:
        seen.extend(specs)
        return "torch", "as requested"

    monkeypatch.setattr(backend, "choose_backend", choose_backend)
    settings = Settings(detector="center", segmenter="sam_vit_b", model_weights="random:0", devices="cpu,cpu")
    choices.choose_devices(settings, [], True, 7)
    assert [spec.images for spec in seen] == [4]

"""The reports of `fgfast doctor`: for machines with and without packages and GPUs, and for broken ones."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command import fgfast

from fgfast import doctor
from fgfast.backends.manifest import Manifest
from fgfast.doctor import advice, backends, checks, hardware, software, stores, text, two_layers
from fgfast.doctor.findings import Check, NotWorking, Skipped
from fgfast.errors import MissingExtraError, RecordingFailedError, install_command

TORCH = importlib.util.find_spec("torch") is not None
ONNX = importlib.util.find_spec("onnx") is not None

SMI = """#!/bin/sh
if [ "$1" ]; then echo "NVIDIA H200, 143771, 143000, 9.0, 580.95.05"; else echo "CUDA Version: 13.0"; fi
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "cache"))


def _program(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a nvidia-smi in front of the search path."""
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_report_is_whole_and_fits_the_screen() -> None:
    facts = doctor.examine()
    assert not [topic for topic, found in facts.items() if isinstance(found, dict) and "error" in found]
    report = text.report(facts)
    commands = {step["command"] for step in facts["next"]}
    for line in report.splitlines():
        assert len(line) <= 100 or line.strip() in commands or "/" in line, line
    for word in ("fgfast 0.", "processor", "GPUs", "numpy", "Weights", "free in", "for a data set with boxes"):
        assert word in report
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.parametrize("topic", ["fgfast", "machine", "gpus", "packages", "weights", "graphs", "disk", "convert"])
def test_a_topic_that_breaks_is_a_line(topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = {"fgfast": software, "packages": software, "machine": hardware, "gpus": hardware, "convert": advice}
    name = {"convert": "choices"}.get(topic, topic)

    def broken() -> Any:
        raise ImportError(f"{topic}.so: undefined symbol")

    monkeypatch.setattr(rooms.get(topic, stores), name, broken)
    facts = doctor.examine()
    assert facts[topic] == {"error": f"ImportError: {topic}.so: undefined symbol"}
    assert "undefined symbol" in text.report(facts).replace("\n", " ")


def test_gpus_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path / "bin", monkeypatch, SMI)
    facts = doctor.examine()
    driver = facts["gpus"]["driver"]
    assert driver["found"] == [
        {"name": "NVIDIA H200", "memory": 143771 << 20, "memory_free": 143000 << 20, "capability": "9.0"}
    ]
    assert (driver["version"], driver["cuda"]) == ("580.95.05", "13.0")
    report = text.report(facts)
    assert "NVIDIA H200, 149.9 GB free of 150.8 GB, compute capability 9.0" in report
    if TORCH and not facts["gpus"]["torch"]["found"]:
        assert "torch cannot use NVIDIA H200" in report


def test_a_driver_that_fails_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path / "bin", monkeypatch, "#!/bin/sh\necho Driver/library version mismatch; exit 18\n")
    facts = doctor.examine()
    assert "version mismatch" in facts["gpus"]["driver"]["error"]
    assert "version mismatch" in text.report(facts)


def test_limits_of_the_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text(f"{1 << 28}\n")
    monkeypatch.setattr(hardware, "_control_groups", lambda: [tmp_path])
    found = hardware.machine()
    assert found["cores_quota"] == 1.5
    assert found["memory_limit"] == 1 << 28
    facts = {**doctor.examine(), "machine": found}
    assert "limited to 0.3 GB" in text.report(facts)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert hardware.machine()["cores_quota"] is None


def test_what_is_better_comes_with_the_command() -> None:
    facts: dict[str, Any] = {
        "fgfast": {"native": False},
        "packages": {"tensorrt": {"version": None}, "cv2": {"guided_filter": {"error": "hidden"}}},
        "weights": [{"name": "detic", "path": None}, {"name": "sam_vit_l", "path": "/x"}],
        "graphs": [],
        "gpus": {"driver": {"found": []}, "torch": {"found": [{"name": "H200"}]}},
        "disk": [{"name": "cache", "path": "/c", "free": 1 << 30, "total": 1 << 40}],
    }
    commands = [step["command"] for step in advice.steps(facts)]
    assert commands[0].startswith("pip uninstall -y opencv-python ")
    assert install_command(options="--force-reinstall --no-deps --no-cache-dir") in commands
    assert "fgfast models pull detic" in commands
    assert "detic (Apache-2.0) gives boxes" in {step["reason"] for step in advice.steps(facts)}
    assert any(command.endswith(install_command("gpu")) for command in commands)
    # One command brings everything, and only the ONNX Runtime for GPUs: the other one would overwrite its files.
    assert f"{install_command('export,gpu')} && fgfast export sam_vit_l" in [
        command.removeprefix("pip uninstall -y onnxruntime && ") for command in commands
    ]
    assert "export FGFAST_CACHE=/a/larger/disk" in commands
    assert not any("detectron2" in command for command in commands)
    facts["packages"]["detectron2"] = {"version": None}
    last = advice.steps(facts)[-1]
    assert "docs/models.md" in last["reason"]
    assert (
        "git -C detectron2 checkout 02b5c4e" in last["command"] and "git -C Detic checkout 436cda2" in last["command"]
    )
    facts["packages"]["onnxruntime"] = {"version": "1", "duplicates": {"onnxruntime": "1", "onnxruntime-gpu": "1"}}
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in advice.steps(facts)[1]["command"]
    facts["packages"] = {name: {"version": "1"} for name in ("tensorrt", "onnx", "onnxscript", "onnxruntime")}
    assert "fgfast export sam_vit_l --backend tensorrt" in [step["command"] for step in advice.steps(facts)]
    facts["graphs"] = [{"model": "sam_vit_l", "kind": "engine"}]
    assert not [step for step in advice.steps(facts) if "fgfast export" in step["command"]]


def _machine(driver: str, torch: dict[str, Any], **packages: dict[str, Any]) -> dict[str, Any]:
    """The facts of a machine with an RTX 3090."""
    found = [{"name": "NVIDIA GeForce RTX 3090"}]
    return {
        "fgfast": {"native": True},
        "packages": packages,
        "weights": [{"name": name, "path": "/x"} for name in ("detic", "sam_vit_l", "sam_vit_b")],
        "graphs": [],
        "gpus": {"driver": {"found": found, "version": driver, "cuda": "12.8"}, "torch": torch},
        "disk": [],
    }


@pytest.mark.skipif(not TORCH, reason="torch is not installed")
@pytest.mark.parametrize(
    ("driver", "built", "words", "command"),
    [
        ("570.86.15", "13.0", ("570.86.15", "CUDA 13 needs 580 or newer", "update the driver"), "whl/cu126"),
        ("525.60", "12.6", ("driver is new enough", "CUDA_VISIBLE_DEVICES"), "torch.cuda.init()"),
        ("580.95.05", None, ("built without CUDA",), "--force-reinstall torch"),
        ("535.183", None, ("built without CUDA",), "whl/cu126"),
        ("470.42", "12.6", ("470.42", "CUDA 12 needs 525 or newer"), "whl/cu126"),
    ],
)
def test_a_gpu_that_torch_cannot_use(driver: str, built: str | None, words: tuple[str, ...], command: str) -> None:
    """Installing the same torch again would leave a driver that is too old where it is."""
    (step,) = [s for s in advice.steps(_machine(driver, {"found": [], "cuda": built})) if "torch cannot" in s["reason"]]
    assert "RTX 3090" in step["reason"] and all(word in step["reason"] for word in words)
    assert command in step["command"]


def test_packages_for_cuda_13_under_an_older_driver() -> None:
    usable = {"found": [{"name": "NVIDIA GeForce RTX 3090"}], "cuda": "12.6"}
    packages = {
        "tensorrt": {"version": "11.4", "installed_as": "tensorrt"},
        "nvidia.dali": {"version": "2.4", "installed_as": "nvidia-dali-cuda130"},
        "onnxruntime": {"version": "1.31.1", "installed_as": "onnxruntime-gpu"},
        "onnx": {"version": "1.23", "installed_as": "onnx"},
    }
    steps = advice.steps(_machine("550.54.14", usable, **packages))
    (step,) = [s for s in steps if "need CUDA 13" in s["reason"]]
    assert step["command"].startswith("pip uninstall -y nvidia-dali-cuda130 onnxruntime-gpu tensorrt && pip install ")
    assert "tensorrt-cu12" in step["command"] and "550.54.14" in step["reason"]
    assert not [s for s in advice.steps(_machine("580.65", usable, **packages)) if "CUDA 13" in s["reason"]]
    older = {"onnxruntime": {"version": "1.26.0", "installed_as": "onnxruntime-gpu"}}
    assert not [s for s in advice.steps(_machine("550.54.14", usable, **older)) if "CUDA 13" in s["reason"]]
    # The extra `gpu` would bring what this driver cannot run.
    (step,) = [s for s in advice.steps(_machine("550.54.14", usable)) if s["reason"].startswith("TensorRT is")]
    assert "tensorrt-cu12" in step["command"] and "onnxruntime" not in step["command"]


def test_no_advice_installs_both_onnx_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They overwrite each other's files. tests/unit/test_release.py: only the extras cpu and gpu bring one."""
    usable = {"found": [{"name": "NVIDIA H200"}], "cuda": "13.0"}
    here = {"onnxruntime": {"version": "1.32", "installed_as": "onnxruntime"}}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"onnxruntime": "1.32"}[name])
    for packages in (here, {}):
        commands = [step["command"] for step in advice.steps(_machine("580.65", usable, **packages))]
        assert any("gpu" in command for command in commands)
        for command in commands:
            extras = set(re.findall(r"\w+", "".join(re.findall(r"\[([\w,]+)\]", command))))
            assert not {"cpu", "gpu"} <= extras, command
            if "gpu" in extras:
                assert command.startswith("pip uninstall -y onnxruntime && "), command


def test_nothing_is_advised_where_nothing_is_known() -> None:
    broken = {"error": "ImportError"}
    facts: dict[str, Any] = dict.fromkeys(("fgfast", "packages", "weights", "graphs", "gpus", "disk"), broken)
    assert [step for step in advice.steps(facts) if "PyTorch" not in step["reason"]] == []


def test_passwords_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGFAST_MIRROR", "https://me:secret@mirror.example/models")
    monkeypatch.setenv("FGFAST_OPS", "reference")
    found = software.environment()
    assert "secret" not in str(found)
    assert found["FGFAST_OPS"] == "reference"


def test_a_graph_without_a_manifest_is_a_line(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "graphs" / "sam_vit_l"
    folder.mkdir(parents=True)
    (folder / "sam_mask_decoder.onnx").write_bytes(b"")
    (folder / "sam_mask_decoder-h200-trt11.engine").write_bytes(b"")
    facts = doctor.examine()
    assert [row["kind"] for row in facts["graphs"]] == ["engine", "onnx"]
    assert all("did not pass its parity check here" in row["error"] for row in facts["graphs"])
    assert "sam_mask_decoder.onnx" in text.report(facts)


def test_checks_are_ok_failed_or_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def attempts(facts: dict[str, Any]) -> Iterator[Any]:
        def lost() -> str:
            raise Skipped("no GPU")

        def broken() -> str:
            raise OSError("libcudart.so.13: cannot open")

        yield "good", lambda: "fine"
        yield "lost", lost
        yield "broken", broken

    monkeypatch.setattr(checks, "_attempts", attempts)
    found = list(checks.run({}))
    assert [(c.state, c.detail) for c in found] == [
        ("ok", "fine"),
        ("skipped", "no GPU"),
        ("failed", "OSError: libcudart.so.13: cannot open"),
    ]
    assert text.checks_summary(found) == "1 ok, 1 failed, 1 skipped"
    assert text.check_line(found[2]) == "  failed    broken: OSError: libcudart.so.13: cannot open"


def test_a_package_that_ends_the_process_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fragile.py").write_text("import os; os.abort()")
    (tmp_path / "torn.py").write_text("raise ImportError('torn.so: undefined symbol')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(NotWorking, match="ended with -6"):
        checks._import("fragile")
    with pytest.raises(NotWorking, match=r"torn\.so: undefined symbol"):
        checks._import("torn")


def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_import", lambda module: "")


@pytest.mark.skipif(not (TORCH and ONNX), reason="needs torch and onnx")
def test_verify_runs_what_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    _cheap(monkeypatch)
    found = {check.name: check for check in checks.run(doctor.examine())}
    assert found["torch on cpu"].state == "ok"
    if importlib.util.find_spec("onnxruntime"):
        assert found["ONNX Runtime, cpu"].state == "ok", found["ONNX Runtime, cpu"].detail
        assert "off by" in found["ONNX Runtime, cpu"].detail
    assert found["TensorRT"].state in ("ok", "skipped")


@pytest.mark.skipif(not (TORCH and ONNX), reason="needs torch and onnx")
@pytest.mark.parametrize(("fault", "state"), [("", "ok"), ("numbers", "failed"), ("build", "failed")])
def test_verify_tries_tensorrt(monkeypatch: pytest.MonkeyPatch, fault: str, state: str) -> None:
    import unit.fake_tensorrt as fake

    trt: Any = fake.make("11.4.0.106", fault=fault)
    fake.install(monkeypatch, trt)
    monkeypatch.setattr("fgfast.doctor.backends._gpu", lambda: "cuda:0")
    monkeypatch.setattr("fgfast.doctor.backends._apart", backends.tensorrt_here)  # the fake is in this process
    attempts = [pair for pair in checks._attempts(_bare()) if pair[0] == "TensorRT"]
    monkeypatch.setattr(checks, "_attempts", lambda facts: iter(attempts))
    (check,) = checks.run({})
    assert check.state == state, check.detail
    if state == "ok":
        assert "11.4.0.106 on Fake GPU" in check.detail and "recorded as a CUDA graph" in check.detail


@pytest.mark.skipif(not TORCH, reason="needs torch")
def test_a_recording_that_fails_damages_no_more_than_its_own_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doctor went on in the damaged process."""
    monkeypatch.setattr("fgfast.doctor.backends._needs", lambda *packages: None)
    monkeypatch.setattr("fgfast.doctor.backends._gpu", lambda: "cuda:0")
    if importlib.util.find_spec("tensorrt") is None:
        with pytest.raises(MissingExtraError, match="running TensorRT engines"):
            backends.tensorrt()  # in a process of its own

    def apart(device: str, record: bool) -> str:
        if record:
            raise RecordingFailedError("two_layers cannot be recorded as a CUDA graph on cuda:0: it waits")
        return "off by 1e-06"

    monkeypatch.setattr("fgfast.doctor.backends._apart", apart)
    assert backends.tensorrt() == (
        "off by 1e-06, unrecorded: two_layers cannot be recorded as a CUDA graph on cuda:0: it waits"
    )


def _bare() -> dict[str, Any]:
    return {"packages": {}, "gpus": {}, "weights": [], "graphs": []}


@pytest.mark.skipif(not (TORCH and ONNX), reason="needs torch and onnx")
def test_verify_runs_exported_graphs_and_notices_changed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    from fgfast import graphs
    from fgfast.transfer import digest_of

    folder = tmp_path / "cache" / "graphs" / "two_layers"
    folder.mkdir(parents=True)
    path, contract = two_layers.write(folder)
    files = {path.name: digest_of(path)}
    Manifest(contract, "two_layers", "random:0", "fp32", 20, {}, files).write(path.with_suffix(".json"))
    assert "which this fgfast does not have" in stores.graphs()[0]["error"]
    monkeypatch.setattr(graphs, "GRAPHS", {"two_layers": two_layers.two_layers})
    facts = {**_bare(), "graphs": stores.graphs()}
    name = f"onnx two_layers/{path.name}"
    found = {check.name: check for check in checks.run(facts)}
    assert found[name].state == "ok", found[name].detail
    path.write_bytes(path.read_bytes() + b" ")
    found = {check.name: check for check in checks.run(facts)}
    assert found[name].state == "failed" and "export the model again" in found[name].detail


@pytest.mark.skipif(not TORCH, reason="needs torch")
def test_random_inputs_keep_to_every_contract() -> None:
    from fgfast import graphs
    from fgfast.doctor.backends import random_inputs

    arguments = {"sam_image_encoder": (64,), "sam_mask_decoder": (64,), "sam_prompt_decoder": (64,)}
    for name, contract_of in graphs.GRAPHS.items():
        contract = contract_of(*arguments.get(name, ((64, 96),)))
        inputs = random_inputs(contract)
        given = {k: (str(v.dtype).removeprefix("torch."), tuple(v.shape)) for k, v in inputs.items()}
        assert contract.bind(given).keys() == set(contract.free), name


def test_without_torch_the_report_still_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec

    def find_spec(name: str, *more: Any) -> Any:
        return None if name.partition(".")[0] in ("torch", "onnx", "onnxruntime") else there(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setitem(sys.modules, "torch", None)
    facts = doctor.examine()
    report = text.report(facts)
    assert "torch is not installed" in report
    assert install_command("models") in report
    _cheap(monkeypatch)
    found = {check.name: check.state for check in checks.run({**facts, **_bare()})}
    assert found["TensorRT"] == found["torch on cpu"] == found["ONNX Runtime, cpu"] == "skipped"


def test_weights_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    from fgfast.models.files import weights

    monkeypatch.setattr(weights, "verify", lambda name: SimpleNamespace(digest="published"))
    facts = {**_bare(), "weights": [{"name": "sam_vit_l", "path": "/x"}, {"name": "detic", "path": None}]}
    found = {check.name: check for check in checks.run(facts)}
    assert found["weights sam_vit_l"].state == "ok"
    assert "weights detic" not in found


def test_the_command(tmp_path: Path) -> None:
    done = fgfast("doctor", cwd=tmp_path, FGFAST_OPS="reference")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "FGFAST_OPS=reference" in done.stdout
    done = fgfast("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["checks"] is None
    assert facts["convert"]["with boxes"]["segmenter"] == "grabcut"


def test_the_command_ends_with_1_when_a_check_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from fgfast.cli import main

    for state, code in (("ok", 0), ("skipped", 0), ("failed", 1)):
        monkeypatch.setattr(checks, "run", lambda facts, s=state: iter([Check("a", s, "b", 0.1)]))
        for arguments in (["doctor", "--verify"], ["doctor", "--verify", "--json"]):
            done = CliRunner().invoke(main, arguments)
            assert done.exit_code == code, done.output
            assert state in done.output


def test_the_kernels_and_triton_are_a_sentence_per_gpu() -> None:
    found = [
        {
            "name": "V100",
            "memory": 1,
            "memory_free": None,
            "capability": "7.0",
            "ops": "cudaErrorNoKernelImageForDevice",
        },
        {"name": "H200", "memory": 1, "memory_free": None, "capability": "9.0", "ops": ""},
    ]
    gpus: dict[str, Any] = {"driver": {"version": None}, "torch": {"found": found, "cuda": "13.0"}, "nvjpeg": None}
    gpus["triton"] = {"installed": True, "compiler": None}
    rows = dict(row for row in text._gpus(gpus) if not isinstance(row, str))
    assert "do not run: cudaErrorNoKernelImageForDevice; PyTorch's are used" in rows["kernels on cuda:0"]
    assert rows["kernels on cuda:1"] == "fgfast's own run"
    assert "no C compiler" in rows["Triton"]
    gpus["triton"]["compiler"] = "/usr/bin/gcc"
    rows = dict(row for row in text._gpus(gpus) if not isinstance(row, str))
    assert rows["Triton"] == "compiles SAM's attention with /usr/bin/gcc"
    assert set(hardware.gpus()["triton"]) == {"installed", "compiler"}


@pytest.mark.skipif(not TORCH, reason="needs torch")
def test_the_ops_are_asked_of_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from unit import fake_cuda

    from fgfast.ops import cuda

    fake_cuda.install(monkeypatch)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(cuda, "refusal", ["", "no kernel image"].__getitem__)
    assert [gpu["ops"] for gpu in hardware._torch()["found"]] == ["", "no kernel image"]

"""Recordings of CUDA graphs that fail: what is restored, noted and not tried again; against a fake of CUDA."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import unit.fake_cuda as fake  # noqa: E402

from fgfast import keyed_notes  # noqa: E402
from fgfast.backends import recording  # noqa: E402
from fgfast.errors import DeviceFailedError, RecordingFailedError  # noqa: E402

GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGFAST_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> fake.Cuda:
    return fake.install(monkeypatch)


def _record(run: Any, what: str = "a graph") -> Any:
    return recording.record(what, run, recording.Pool(GPU))


def test_a_run_is_warmed_up_and_recorded(cuda: fake.Cuda) -> None:
    seen: list[tuple[fake.Stream, bool]] = []

    def run() -> int:
        seen.append((cuda.current, bool(cuda.recordings)))
        return len(seen)

    graph, outputs = _record(run)
    assert graph.ended and outputs == 3
    assert [recorded for _, recorded in seen] == [False, False, True]
    assert len({stream for stream, _ in seen}) == 1 and cuda.current is cuda.default
    assert recording.refusal("a graph", GPU) == ""


def test_torch_itself_is_damaged_by_a_failed_recording(cuda: fake.Cuda) -> None:
    """The reason for all of this, in the installed torch's own torch.cuda.graph."""
    with (
        pytest.raises(RuntimeError, match="previous error"),
        torch.cuda.graph(cuda.graph(), pool=(0, 1), stream=fake.Stream()),
    ):
        cuda.forbidden()
    assert cuda.current is not cuda.default and cuda.recordings == [(0, 1)]


def test_a_failed_recording_is_undone_and_ends_the_process(cuda: fake.Cuda) -> None:
    with pytest.raises(
        RecordingFailedError, match=r"not permitted when stream .* same command again, runs it without"
    ) as e:
        _record(cuda.forbidden)
    assert isinstance(e.value, DeviceFailedError)
    assert cuda.current is cuda.default and not cuda.recordings
    assert set(cuda.pools.values()) == {0}
    assert not recording._ONE_AT_A_TIME.locked()


def test_an_error_of_the_python_code_ends_the_process_too(cuda: fake.Cuda) -> None:
    """The recording itself can be ended; it is not known what else was left half done."""

    def run() -> None:
        if cuda.recordings:
            raise ValueError("a shape that depends on the values")

    with pytest.raises(RecordingFailedError, match="a shape that depends"):
        _record(run)
    assert cuda.current is cuda.default and not cuda.recordings
    assert set(cuda.pools.values()) == {0}


def test_a_new_process_does_not_try_again(cuda: fake.Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecordingFailedError):
        _record(cuda.forbidden)
    keyed_notes._key_in.cache_clear()  # as in a new process
    assert "operation not permitted" in recording.refusal("a graph", GPU)
    assert recording.refusal("another graph", GPU) == ""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "another GPU")
    assert recording.refusal("a graph", GPU) == ""


def test_without_a_place_for_notes_nothing_is_recorded(cuda: fake.Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyed_notes, "private_name", lambda purpose: "")
    assert "set XDG_STATE_HOME" in recording.refusal("a graph", GPU)


def test_a_lack_of_memory_is_not_held_against_the_graph(cuda: fake.Cuda) -> None:
    def run() -> None:
        if cuda.recordings:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        _record(run)
    assert cuda.current is cuda.default and not cuda.recordings
    assert recording.refusal("a graph", GPU) == ""


def test_an_error_before_the_recording_is_the_callers(cuda: fake.Cuda) -> None:
    def run() -> None:
        raise ValueError("wrong inputs")

    with pytest.raises(ValueError, match="wrong inputs"):
        _record(run)
    assert not cuda.recorded and recording.refusal("a graph", GPU) == ""


def test_one_recording_at_a_time(cuda: fake.Cuda) -> None:
    """The fake's capture_begin refuses a second one."""
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        if cuda.recordings:
            inside.set()
            assert go_on.wait(10)

    first = threading.Thread(target=_record, args=(slow,))
    first.start()
    assert inside.wait(10)
    second = threading.Thread(target=_record, args=(lambda: None,))
    second.start()
    second.join(0.05)
    assert second.is_alive() and cuda.recorded == 1
    go_on.set()
    first.join(10)
    second.join(10)
    assert cuda.recorded == 2 and not cuda.recordings


class TestPools:
    def test_the_recordings_of_a_model_share_their_memory_and_two_models_do_not(self, cuda: fake.Cuda) -> None:
        pool, another = recording.Pool(GPU), recording.Pool(GPU)
        graphs = [recording.record("a graph", lambda: 0, of)[0] for of in (pool, pool, another)]
        assert cuda.pools == {graphs[0].pool: 2, graphs[2].pool: 1}
        assert graphs[0].pool == graphs[1].pool

    def test_a_recording_that_fails_leaves_those_before_it(self, cuda: fake.Cuda) -> None:
        pool = recording.Pool(GPU)
        graph, _ = recording.record("a graph", lambda: 0, pool)
        with pytest.raises(RecordingFailedError):
            recording.record("another graph", cuda.forbidden, pool)
        assert not cuda.recordings and cuda.pools == {graph.pool: 1}
        graph.replay()

    def test_memory_without_recordings_is_given_back_and_not_used_again(self, cuda: fake.Cuda) -> None:
        """As when a batch did not fit, and all canvases are recorded again for half of it."""
        pool = recording.Pool(GPU)
        graph, _ = recording.record("a graph", lambda: 0, pool)
        first = graph.pool
        del graph
        cuda.under_way = None
        assert cuda.pools == {first: 0}
        graph, _ = recording.record("a graph", lambda: 0, pool)
        assert graph.pool != first and cuda.pools[graph.pool] == 1

    def test_each_pool_has_a_stream_of_its_own(self, cuda: fake.Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
        """torch hands out 32 streams in turn."""
        streams, begun = [fake.Stream() for _ in range(32)], iter(range(1000))
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: streams[next(begun) % 32])
        pools = [recording.Pool(GPU) for _ in range(3)]
        for _ in range(30):
            torch.cuda.Stream(GPU)
        pools += [recording.Pool(GPU) for _ in range(3)]
        assert len({pool.stream.cuda_stream for pool in pools}) == 6

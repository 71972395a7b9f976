"""The calls that copies to a CUDA device are made of, in their order, with CUDA itself replaced by a log."""

from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import oocload
from tests.adapters.frameworks import BATCH, N_BATCHES, WINDOW, write

torch = pytest.importorskip("torch")
from oocload.adapters import device as adapter  # noqa: E402

pytestmark = pytest.mark.framework
META = torch.device("meta")  # a device to which tensors go without CUDA


class Cuda:
    """A log of what was asked of CUDA."""

    def __init__(self, code: int = 0) -> None:
        self.log: list[Any] = []
        self.code = code
        self.pinned: dict[int, int] = {}
        self.current: Any = None

    def Stream(self, device: Any) -> str:
        return "copies"

    @contextmanager
    def stream(self, stream: str) -> Any:
        self.current = stream
        yield
        self.current = None

    def Event(self) -> Any:
        log, number = self.log, len(self.log)
        return SimpleNamespace(
            record=lambda stream: log.append(("record", number, stream)),
            synchronize=lambda: log.append(("synchronize", number)),
            number=number,
        )

    def current_stream(self, device: Any) -> Any:
        return SimpleNamespace(wait_event=lambda event: self.log.append(("wait", event.number)))

    def device(self, device: Any) -> Any:
        return nullcontext()

    def cudart(self) -> Any:
        return SimpleNamespace(cudaHostRegister=self.register, cudaHostUnregister=self.pinned.pop)

    def register(self, address: int, nbytes: int, flags: int) -> int:
        assert flags == 1
        if not self.code:
            self.pinned[address] = nbytes
        return self.code


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    fake = Cuda()
    monkeypatch.setattr(adapter, "torch", SimpleNamespace(cuda=fake, zeros=torch.zeros))
    return fake


def test_a_batch_is_copied_on_a_stream_of_its_own_and_waited_for_on_the_device(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "tensors_of", lambda batch: [SimpleNamespace(record_stream=cuda.log.append)])

    def finish(batch: Any) -> Any:
        assert cuda.current == "copies"
        cuda.log.append("finish")
        return batch

    copy = adapter.CudaDevice(META, finish).start((torch.zeros(3).numpy(), torch.zeros(2).numpy()))
    assert cuda.log == [("record", 0, "copies"), "finish", ("record", 2, "copies")]
    copy.wait()
    assert cuda.log[-1] == ("synchronize", 0)  # the event behind the copies, not that behind the floats
    x, _ = copy.result()
    assert x.device == META
    assert cuda.log[-2] == ("wait", 2)
    assert cuda.log[-1].wait_event is not None  # the memory is not given away before the stream is done with it


def test_slabs_are_pinned_and_unpinned(tmp_path: Path, cuda: Cuda) -> None:
    with oocload.Loader(write(tmp_path / "t.h5"), BATCH, seed=1, shuffle=WINDOW) as loader:
        loader.prepare_slabs(adapter.pin(META))
        assert sum(1 for _ in loader) == N_BATCHES
        assert cuda.pinned
    assert not cuda.pinned


def test_memory_that_cannot_be_pinned_is_used_as_it_is(
    tmp_path: Path, cuda: Cuda, caplog: pytest.LogCaptureFixture
) -> None:
    cuda.code = 2
    with oocload.Loader(write(tmp_path / "t.h5"), BATCH, seed=1, shuffle=WINDOW) as loader:
        loader.prepare_slabs(adapter.pin(META))
        assert sum(1 for _ in loader) == N_BATCHES
    assert "bytes of a slab could not be pinned (CUDA error 2)" in caplog.text

"""The memory of batches and their copy to the device: no early reuse, no wait."""

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from loading import make_loader

from fkdx.loader.slots import DeviceSlots, in_one_piece, make_slots


class SlowCopies(DeviceSlots):
    """DeviceSlots whose copies end when the test says so."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, torch.device("cpu"))
        self.events: list[SimpleNamespace] = []

    def _new_stream(self) -> None:
        return None

    def _new_slot(self) -> torch.Tensor:
        return torch.zeros(self._shape, dtype=torch.uint8)

    def _start_copy(self, pinned: torch.Tensor) -> tuple[torch.Tensor, SimpleNamespace]:
        event = SimpleNamespace(passed=False)
        event.query = lambda: event.passed
        self.events.append(event)
        return pinned, event

    def _wait_for(self, images: torch.Tensor, copied: SimpleNamespace) -> None:
        pass


def test_a_slot_is_not_taken_before_its_copy_is_done() -> None:
    slots = SlowCopies((4, 3))
    one = slots.take()
    address = one.ctypes.data
    slots.deliver(one, 4)
    del one
    taken = [slots.take() for _ in range(3)]
    assert address not in {slot.ctypes.data for slot in taken}
    slots.events[0].passed = True
    assert slots.take().ctypes.data == address


def test_a_dropped_slot_comes_back() -> None:
    slots = SlowCopies((4, 3))
    one = slots.take()
    address = one.ctypes.data
    del one
    assert slots.take().ctypes.data == address


def test_a_copy_that_nobody_waits_for_ends_before_its_slot_comes_back() -> None:
    slots = SlowCopies((4, 3))
    one = slots.take()
    address = one.ctypes.data
    slots.begin(one, 4)
    del one
    assert slots.take().ctypes.data != address
    slots.events[0].passed = True
    assert slots.take().ctypes.data == address


@pytest.mark.filterwarnings("ignore:CropLoader. skipped")
def test_the_next_copy_begins_before_a_batch_is_handed_out(root: Path) -> None:
    expected = [batch.images.clone() for batch in make_loader(root)]
    loader = make_loader(root, prefetch=2)
    loader._slots = slots = SlowCopies(loader._slots._shape)
    copy_if_whole = loader._copy_if_whole

    def copy_when_decoded(planned: Future) -> bool:
        while not planned.result().pending._native.wait(1.0):
            pass
        return copy_if_whole(planned)

    loader._copy_if_whole = copy_when_decoded
    early = 0
    for step, batch in enumerate(loader):
        early += len(slots.events) == step + 2
        assert torch.equal(batch.images, expected[step])
    assert len(slots.events) == len(loader) == 10
    turn = loader.sampler.order(0).tolist().index(loader.pool.store.keys.index("b/7.jpg"))
    assert early == 9 - (turn >= 4)  # all but the first, and not the one with the corrupt image


@pytest.mark.filterwarnings("ignore:CropLoader. skipped")
def test_threads_fill_the_very_memory_that_is_copied_to_a_device(root: Path) -> None:
    loader = make_loader(root)
    loader._slots = slots = SlowCopies(loader._slots._shape)
    made: list[torch.Tensor] = []
    new_slot = slots._new_slot
    slots._new_slot = lambda: made.append(new_slot()) or made[-1]
    for step, batch in enumerate(loader):
        assert batch.images.data_ptr() in {slot.data_ptr() for slot in made}  # `_start_copy` copies nothing
        assert batch.images.is_contiguous()
        slots.events[step].passed = True
    assert 1 <= len(made) < len(loader)


def test_parts_of_a_batch_travel_in_one_piece(rng: np.random.Generator) -> None:
    given = [
        torch.from_numpy(rng.integers(0, 100, (7, 5), np.int16)),
        torch.from_numpy(rng.random((7, 5)).astype(np.float16)),
        torch.from_numpy(rng.integers(0, 100, 7)),
        torch.zeros(0, 4),
        torch.from_numpy(rng.random(3)),
    ]
    came = in_one_piece(given, "cpu", pinned=False)
    for got, want in zip(came, given, strict=True):
        assert got.dtype == want.dtype
        assert torch.equal(got, want)
        assert got.data_ptr() % 16 == 0 or not got.numel()
    assert len({part.untyped_storage().data_ptr() for part in came}) == 1


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:CropLoader. skipped")
def test_batches_on_the_gpu_under_a_stalled_stream(root: Path) -> None:
    expected = [batch.images.clone() for batch in make_loader(root)]
    loader = make_loader(root, device="cuda", prefetch=1)
    for _ in range(20):
        loader.set_epoch(0)
        found = []
        for batch in loader:
            torch.cuda._sleep(20_000_000)
            with torch.cuda.stream(loader._slots._stream):
                torch.cuda._sleep(20_000_000)  # the next copy waits behind this
            found.append(batch.images.clone())
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours.cpu(), theirs)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(RuntimeError, match="loader: device, got cuda:1, but torch sees no GPU; try cpu"):
        make_slots((4, 8, 8, 3), "cuda:1", 2)
    with pytest.raises(ValueError, match="loader: device, got mps, expected None, cpu or cuda"):
        make_slots((4, 8, 8, 3), "mps", 2)

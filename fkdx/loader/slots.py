"""Memory for batches: filled by threads, handed out as tensors, and reused, but never while a batch is in
use."""

import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fkdx.errors import refuse

Device = str | torch.device | None


def on_cuda(device: Device) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def send(parts: tuple, device: Device) -> tuple:
    """What belongs to a batch besides its images, tensors, targets, mixes or None, on the device: copied in
    one piece through pinned memory, without waiting."""
    if not on_cuda(device):
        return parts
    tensors: dict[int, torch.Tensor] = {}
    for part in parts:
        _mapped(part, lambda tensor: tensors.setdefault(id(tensor), tensor))
    moved = dict(zip(tensors, in_one_piece(list(tensors.values()), device), strict=True))
    return tuple([_mapped(part, lambda tensor: moved[id(tensor)]) for part in parts])


def in_one_piece(tensors: list[torch.Tensor], device: Device, pinned: bool = True) -> list[torch.Tensor]:
    """Copies of contiguous tensors on the device, parts of one buffer that is copied at once."""
    sizes = [-(-tensor.nbytes // 16) * 16 for tensor in tensors]  # every one begins at a multiple of 16 bytes

    def parts(buffer: torch.Tensor) -> list[torch.Tensor]:
        pieces = zip(buffer.split(sizes), tensors, strict=True)
        return [piece[: one.nbytes].view(one.dtype).view(one.shape) for piece, one in pieces]

    host = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=pinned)
    for part, tensor in zip(parts(host), tensors, strict=True):
        part.copy_(tensor)
    return parts(host.to(device, non_blocking=True))


def _mapped(part: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if part is None:
        return None
    return change(part) if isinstance(part, torch.Tensor) else part.mapped(change)


def make_slots(shape: tuple[int, ...], device: Device, kept: int) -> "HostSlots | DeviceSlots":
    """Slots for uint8 batches of one shape; up to `kept` free ones are kept for reuse. RuntimeError for a
    CUDA device where torch sees none, ValueError for another one."""
    if device is not None and torch.device(device).type not in ("cpu", "cuda"):
        refuse("loader", "device", device, "None, cpu or cuda")
    if on_cuda(device) and not torch.cuda.is_available():
        raise RuntimeError(f"loader: device, got {device}, but torch sees no GPU; try cpu")
    return DeviceSlots(shape, torch.device(device)) if on_cuda(device) else HostSlots(shape, kept)


class HostSlots:
    """Slots in ordinary memory. A tensor that is handed out *is* its slot, and the slot comes back when the
    last tensor, array or view that shares its memory is gone. So a batch does not change as long as it is
    used."""

    def __init__(self, shape: tuple[int, ...], kept: int) -> None:
        self._shape, self._kept = shape, kept
        self._free: deque[bytearray] = deque()

    def take(self) -> np.ndarray:
        """A uint8 array of the slots' shape, with arbitrary content."""
        memory = self._free.pop() if self._free else bytearray(int(np.prod(self._shape)))
        # Every view of a view of `flat` refers to `flat`, because the base of `flat` is not an array.
        flat = np.frombuffer(memory, np.uint8)
        weakref.finalize(flat, self._give_back, memory).atexit = False
        return flat.reshape(self._shape)

    def begin(self, slot: np.ndarray, rows: int) -> None:
        """See DeviceSlots; here nothing is copied."""

    def deliver(self, slot: np.ndarray, rows: int) -> torch.Tensor:
        """The first `rows` rows as a tensor."""
        return torch.from_numpy(slot)[:rows]

    def _give_back(self, memory: bytearray) -> None:
        if len(self._free) < self._kept:
            self._free.append(memory)


class DeviceSlots:
    """Pinned slots, copied to a CUDA device on a separate stream. A slot is reused only after the event that
    follows its copy has passed."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self._shape, self._device = shape, device
        self._stream = self._new_stream()
        self._free: list[torch.Tensor] = []
        self._taken: dict[int, torch.Tensor] = {}
        self._copying: deque[tuple[Any, torch.Tensor]] = deque()
        self._begun: dict[int, tuple[torch.Tensor, Any]] = {}

    def take(self) -> np.ndarray:
        """A uint8 array of the slots' shape, with arbitrary content."""
        while self._copying and self._copying[0][0].query():
            self._free.append(self._copying.popleft()[1])
        pinned = self._free.pop() if self._free else self._new_slot()
        slot = pinned.numpy()
        self._taken[id(slot)] = pinned
        weakref.finalize(slot, self._give_back, id(slot)).atexit = False
        return slot

    def begin(self, slot: np.ndarray, rows: int) -> None:
        """Starts the copy of the first `rows` rows, unless it has begun; the slot must not change then."""
        if id(slot) not in self._begun:
            pinned = self._taken.pop(id(slot))
            images, copied = self._start_copy(pinned[:rows])
            self._begun[id(slot)] = images, copied
            self._copying.append((copied, pinned))

    def deliver(self, slot: np.ndarray, rows: int) -> torch.Tensor:
        """The first `rows` rows as a tensor on the device, ready for the current stream."""
        self.begin(slot, rows)
        images, copied = self._begun.pop(id(slot))
        self._wait_for(images, copied)
        return images

    def _start_copy(self, pinned: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event]:
        with torch.cuda.stream(self._stream):
            images = pinned.to(self._device, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        return images, copied

    def _wait_for(self, images: torch.Tensor, copied: torch.cuda.Event) -> None:
        consumer = torch.cuda.current_stream(self._device)
        consumer.wait_event(copied)
        # The allocator must not reuse this memory before the consumer is done.
        images.record_stream(consumer)

    def _new_stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self._device)

    def _new_slot(self) -> torch.Tensor:
        return torch.empty(self._shape, dtype=torch.uint8, pin_memory=True)

    def _give_back(self, slot_id: int) -> None:
        # The slot is still here only if its batch was dropped before delivery.
        self._begun.pop(slot_id, None)
        if (pinned := self._taken.pop(slot_id, None)) is not None:
            self._free.append(pinned)

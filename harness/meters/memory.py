"""Exact bytes of activations, by storage: kept for backward, and the peaks of forward and backward."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.errors import OutOfMemory

_REAL = ("can't allocate memory", "out of memory", "cublas_status_alloc_failed", "not enough memory")


def storages(tensors: Iterable[torch.Tensor]) -> dict[int, int]:
    """Bytes by storage address: tensors that share memory count once."""
    return {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the distinct storages behind `tensors`."""
    return sum(storages(tensors).values())


def module_bytes(module: torch.nn.Module) -> int:
    """Bytes of all parameters and buffers of a module, the scales of 4-bit weights included."""
    scales: list[torch.Tensor] = []
    for p in module.parameters():
        if (state := getattr(p, "quant_state", None)) is not None:  # bitsandbytes keeps them off the module tree
            scales += [value for value in tree_leaves(state.as_dict()) if isinstance(value, torch.Tensor)]
    return tensor_bytes([*module.parameters(), *module.buffers(), *scales])


@contextmanager
def real_out_of_memory() -> Iterator[None]:
    """Turn an allocator's failure into the outcome `out_of_memory`; other errors pass."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(f"the machine ran out of memory: {error}") from error
    except RuntimeError as error:
        if not any(text in str(error).lower() for text in _REAL):
            raise
        raise OutOfMemory(f"the machine ran out of memory: {error}") from error


class LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every storage that is born inside the mode until it dies.

    saved_tensors_hooks cannot see what gradient checkpointing recomputes, nor what an autograd function keeps in its
    context by hand; watching the storages themselves sees both. A kernel's own scratch memory is not seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.events: list[tuple[int, int]] = []
        """(number of the storage, bytes gained or, negative, freed), in order."""
        self._known: dict[int, tuple[int, weakref.ref[torch.UntypedStorage]]] = {}
        self._born = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.ops.aten.lift_fresh.default:  # a tensor literal is born here although it is an input
            for leaf in tree_leaves((args, kwargs)):
                self._see(leaf, new=False)
        result = func(*args, **kwargs)
        for leaf in tree_leaves(result):
            self._see(leaf, new=True)
        return result

    def number(self, tensor: torch.Tensor) -> int | None:
        """The number of a live storage that was born in the mode, else None."""
        return self._known.get(tensor.untyped_storage()._cdata, (None, None))[0] or None

    def mark(self) -> int:
        """The present moment, for `alive` and `peak`."""
        return len(self.events)

    def alive(self, moment: int, without: Iterable[int] = ()) -> int:
        """Bytes alive at a moment."""
        skip = frozenset(without)
        return sum(size for number, size in self.events[:moment] if number not in skip)

    def peak(self, start: int, end: int, without: Iterable[int] = ()) -> int:
        """Largest bytes alive between two moments, both included; storages in `without` are left out from birth."""
        skip = frozenset(without)
        level = peak = self.alive(start, skip)
        for number, size in self.events[start:end]:
            level += 0 if number in skip else size
            peak = max(peak, level)
        return peak

    def _see(self, leaf: Any, *, new: bool) -> None:
        if not isinstance(leaf, torch.Tensor) or leaf.layout is not torch.strided:
            return
        storage = leaf.untyped_storage()
        address = storage._cdata
        if address in self._known:
            return
        number, size = 0, 0  # 0: was there before; it is followed only because its address may be used again
        if new:
            self._born += 1
            number, size = self._born, storage.nbytes()
            self.events.append((number, size))

        def died(_: object, known: dict[int, Any] = self._known, events: list[tuple[int, int]] = self.events) -> None:
            known.pop(address, None)
            if number:
                events.append((number, -size))

        self._known[address] = (number, weakref.ref(storage, died))

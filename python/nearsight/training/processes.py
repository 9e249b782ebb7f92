"""Several processes that train one model together: data parallel, started by torchrun, over gloo.

Every process holds its share of the frames and the whole model. Sums over processes are the only thing that
they exchange, and everything that they decide, they decide on such sums, so that all of them do the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor
from torch import distributed as dist

from nearsight.errors import ConfigError, NearsightError

_Value = TypeVar("_Value")


class Processes:
    """A process that is alone; `_Group` is one among several.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are.
        on_machine: how many of them share this machine.
        number_on_machine: which of those this one is, from 0.
    """

    rank = 0
    size = 1
    on_machine = 1
    number_on_machine = 0

    @property
    def first(self) -> bool:
        """Whether this process writes and talks for all."""
        return self.rank == 0

    @property
    def threads(self) -> int:
        """Cores of the machine for each of its processes."""
        return max(1, len(os.sched_getaffinity(0)) // self.on_machine)

    def share(self, count: int) -> range:
        """The numbers below `count` that are this process's."""
        return range(self.rank, count, self.size)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over the processes, the same bits everywhere; in place in tensors of the CPU."""
        return values

    def gather(self, value: _Value) -> list[_Value]:
        """The values of all processes by rank, everywhere."""
        return [value]

    def from_first(self, make: Callable[[], _Value]) -> _Value:
        """What `make` gives in the first process, everywhere."""
        return make()

    def speaks(self) -> bool:
        """Whether this process was the first to ask, and so is to say why the run ends."""
        return True


ALONE = Processes()


class _Group(Processes):
    def __init__(self) -> None:
        try:
            store, self.rank, self.size = next(dist.rendezvous("env://"))
            self._store = dist.PrefixStore("nearsight", store)
            dist.init_process_group("gloo", store=self._store, rank=self.rank, world_size=self.size)
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but the processes do not find one another "
                f"({error}); start them with torchrun, or unset WORLD_SIZE."
            ) from error
        self.on_machine = int(os.environ.get("LOCAL_WORLD_SIZE", self.size))
        self.number_on_machine = int(os.environ.get("LOCAL_RANK", self.rank))
        self._speaks: bool | None = None

    def sum(self, values: Tensor) -> Tensor:
        on_cpu = values.cpu()
        with _together():
            dist.all_reduce(on_cpu)
        return on_cpu.to(values.device)

    def gather(self, value: _Value) -> list[_Value]:
        values: list[Any] = [None] * self.size
        with _together():
            dist.all_gather_object(values, value)
        return values

    def from_first(self, make: Callable[[], _Value]) -> _Value:
        values = [make() if self.first else None]
        with _together():
            dist.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[return-value]

    def speaks(self) -> bool:
        if self._speaks is None:
            try:
                self._speaks = self._store.add("failures", 1) == 1
            except RuntimeError:  # the process that kept the store is gone, and has said why
                self._speaks = False
        return self._speaks


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise NearsightError(
            "Another process of the run has ended unexpectedly (out of memory, or killed); "
            "continue with --restart auto."
        ) from error


@contextmanager
def join_processes() -> Iterator[Processes]:
    """The processes that torchrun started together with this one; alone without it.

    An error ends them all. The first of them that fails raises it; the others exit without a word.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    group = _Group()
    try:
        yield group
        with _together():  # a process that leaves while a sum is still being put away crashes in torch
            dist.barrier()
    except Exception as error:
        if not group.speaks():
            raise SystemExit(getattr(error, "exit_code", 1)) from None
        raise
    finally:
        dist.destroy_process_group()

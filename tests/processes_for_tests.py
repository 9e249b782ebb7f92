"""Processes that train together, without torchrun: children of a server that has imported everything."""

import multiprocessing
import os
import signal
import sys

from torch.distributed import TCPStore

from nearsight.cli import main
from nearsight.training.loop import Trainer

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["processes_for_tests", "nearsight.training.run", "nearsight.models.native"])


def break_at(step, how):
    """Let this process fail, be killed or get a signal while it does a step."""
    train_batch = Trainer.train_batch

    def train_or_break(self, numbers):
        if self.state.step == step:
            if how == "fail":
                raise MemoryError("of a test")
            os.kill(os.getpid(), getattr(signal, how))
        train_batch(self, numbers)

    Trainer.train_batch = train_or_break


def work(environment, folder, arguments, breaks):
    """Run the program as one of the processes, its output in files."""
    os.environ.update(environment)
    os.chdir(folder)
    rank = int(environment["RANK"])
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if rank in breaks:
        break_at(*breaks[rank])
    sys.argv = ["nearsight", "train", *map(str, arguments)]
    main()


def run_processes(size, folder, *arguments, breaks=None):
    """Run `nearsight train` in several processes; returns their exit codes and what they wrote to stderr.

    `breaks`: rank → (step, what happens to it there).
    """
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # as torchrun's agent keeps it
    common = {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    children = [
        _server.Process(target=work, args=(common | {"RANK": str(rank)}, folder, arguments, breaks or {}))
        for rank in range(size)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return [child.exitcode for child in children], [
        (folder / f"err{rank}").read_text() for rank in range(size)
    ]

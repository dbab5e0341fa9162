"""Makes artifacts in several processes at once, where there are cores and memory for them; else one after another in this one."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import multiprocessing
import queue
import tempfile
import threading
import traceback
from collections.abc import Callable, Collection, Iterator
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from exporters.contract import ArtifactName
from exporters.memory import collecting_often, loading
from pipeline.memory import free_memory
from pipeline.orders import Made, Order, Places, Task, Tasks, groups_of, places_for
from pipeline.workers import cores, end_with_parent

if TYPE_CHECKING:
    from pipeline.making import Maker

# What a process has loaded before it works, and what it may take above its correction: two large networks are not made at once.
BASE_BYTES = 2**30
MOST_BYTES_TOGETHER = 7 * 2**29
Say = Callable[[str], None]


def make_all(order: Order, names: Collection[ArtifactName], say: Say) -> Iterator[Made]:
    """Make artifacts into the cache and yield each as it is finished; close the iterator to stop what still runs.

    Args:
        order: what they are made from.
        names: what is made.
        say: given a line when an artifact is begun, from any thread.
    """
    groups = groups_of(names)
    tasks = Tasks(map(Task, groups))
    finished: queue.SimpleQueue[Made | BaseException | None] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        places = stack.enter_context(places_for(order)), stack.enter_context(places_for(order))
        # It loads TensorFlow while this process does.
        worker = stack.enter_context(_Worker(order, places[1])) if len(groups) > 1 and cores() > 1 else None
        maker = _maker(order, places[0])
        stack.enter_context(collecting_often())
        stack.callback(tasks.close)
        # The process that is ready takes what takes longest.
        task, left = tasks.take(), len(names)
        if worker and maker.working_bytes and _fits(maker.working_bytes):
            worker.work_on(tasks, say, finished)
        elif worker:
            worker.stop()
        while left:
            # Where nothing is left to begin, the rest is what the other process works on.
            for made in maker.make(task, say, tasks.give) if task else [finished.get()]:
                if isinstance(made, BaseException):
                    raise made
                if made is not None:
                    left -= 1
                    yield made
            task = tasks.take()


def _maker(order: Order, places: Places, **options: Any) -> Maker:
    with loading():
        # Not at the top: the other process would start after TensorFlow is loaded here.
        making = importlib.import_module("pipeline.making")
    return making.Maker(order, places, **options)


def _fits(working_bytes: int) -> bool:
    together = 2 * (BASE_BYTES + working_bytes)
    free = free_memory()
    return together <= MOST_BYTES_TOGETHER and (free is None or together <= free)


class _Worker:
    """A process that makes groups of artifacts, a context manager: it is stopped, whatever it does, when the block ends."""

    def __init__(self, order: Order, places: Places) -> None:
        # Not forked: TensorFlow's threads do not survive it.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, order, places), daemon=True)
        self._process.start()
        # With no other end open here, a process that ends is noticed.
        theirs.close()

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process at once; what it has not moved into the cache is lost."""
        self._process.kill()
        self._process.join()

    def work_on(self, tasks: Tasks, say: Say, finished: queue.SimpleQueue) -> None:
        """Let the process take tasks until they are closed; what it makes goes to `finished`, and so does its error."""
        threading.Thread(target=self._follow, args=(tasks, say, finished), daemon=True).start()

    def _follow(self, tasks: Tasks, say: Say, finished: queue.SimpleQueue) -> None:
        while task := tasks.take(wait=True):
            waiting = list(task.names)
            try:
                self._connection.send(task)
                while waiting:
                    said = self._connection.recv()
                    if isinstance(said, str):
                        say(said)
                        continue
                    finished.put(said)
                    if isinstance(said, BaseException):
                        return
                    waiting.remove(said.name)
            except (EOFError, OSError):
                # It was killed, for its memory perhaps: this process makes what is left.
                tasks.give(dataclasses.replace(task, names=tuple(waiting)))
                finished.put(None)
                return


def _serve(connection: Connection, order: Order, places: Places) -> None:
    """Make what is asked for until the process is stopped."""
    end_with_parent()
    # What is half done when it is stopped goes with its places.
    tempfile.tempdir = str(places.saved)
    try:
        maker = _maker(order, places, check=False)
        with collecting_often():
            while True:
                for made in maker.make(connection.recv(), connection.send):
                    connection.send(made)
    except Exception as fault:
        # Its place in the code does not travel, but for this.
        fault.add_note("".join(traceback.format_exception(fault)))
        connection.send(fault)

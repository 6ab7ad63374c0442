"""Independent work on several threads, none of which waits for another after every operation."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")
# A new thread begins without memory of its own, which costs what it gains on a few steps.
_JOBS_A_THREAD = 8


def by_threads(work: Callable[[Sequence[_Job]], None], jobs: Sequence[_Job]) -> None:
    """Call `work` with all jobs, in as many parts as torch has threads, if there are enough; inside, torch has one.

    torch's own way splits each operation: its threads wait for each other thousands of times a second, spinning, which
    on a busy machine takes many times as long. Outside the main thread, everything is one part on torch's threads: what
    two set at once would stay.
    """
    if threading.current_thread() is not threading.main_thread():
        work(jobs)
        return
    threads = torch.get_num_threads()
    parts = max(1, min(threads, len(jobs) // _JOBS_A_THREAD))
    bounds = [len(jobs) * part // parts for part in range(parts + 1)]
    try:
        torch.set_num_threads(1)  # of this thread, and of those that begin now
        if parts == 1:
            work(jobs)
            return
        with ThreadPoolExecutor(parts - 1) as pool:
            others = [pool.submit(work, jobs[bounds[part] : bounds[part + 1]]) for part in range(1, parts)]
            work(jobs[: bounds[1]])
            for other in others:
                other.result()
    finally:
        torch.set_num_threads(threads)


def in_order(work: Callable[[_Job], _Result], jobs: Iterable[_Job], threads: int | None = None) -> Iterator[_Result]:
    """The result of every job, in order, while the next ones are worked on and the one after is drawn from `jobs`.

    As many at once as torch has threads, which they share out; outside the main thread, one after the other.

    Args:
        threads: the most at once, where `work` allows no more.
    """
    own = torch.get_num_threads()
    if threading.current_thread() is not threading.main_thread():
        yield from map(work, jobs)
        return
    threads = min(own, threads or own)
    waiting = deque[Future[_Result]]()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(max(1, own // threads),)) as pool:
            try:
                for job in jobs:
                    waiting.append(pool.submit(work, job))
                    if len(waiting) > threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    finally:
        torch.set_num_threads(own)  # of threads to come

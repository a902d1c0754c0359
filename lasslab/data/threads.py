"""A function over many items in threads: work that is ready when it is asked for, in the order of the items."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")


def in_threads(
    function: Callable[[Item], Any], items: Iterable[Item], *, n_threads: int | None = None
) -> Iterator[Any]:
    """Results of a function, in the order of the items, worked on ahead in threads.

    For functions that spend their time where Python's lock is free: in reading and decoding files, and in tensors. Each
    thread works on tensors alone: two threads that both spread their work over all cores wait for each other.

    Args:
        function: of one item; called from several threads at a time.
        items: any number of them, even without end; at most `n_threads` + 1 are taken ahead of what was asked for.
        n_threads: threads; as many as PyTorch's when left out.

    Yields:
        `function(item)` for each item. What a call raises is raised in its place, and ends the work. When the iterator
        is closed, what has not begun is left out.
    """
    in_main = torch.get_num_threads()
    n_threads = n_threads or in_main
    items = iter(items)
    workers = ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        ahead = deque(workers.submit(function, item) for item in islice(items, n_threads + 1))
        while ahead:
            result = ahead.popleft().result()
            ahead.extend(workers.submit(function, item) for item in islice(items, 1))
            yield result
    finally:
        workers.shutdown(cancel_futures=True)
        torch.set_num_threads(in_main)  # threads made later take the number that was set last

"""Work ahead in threads: order, bounds, errors, and what is left as it was."""

import itertools
import threading

import pytest
import torch

from lasslab.data.threads import in_threads


def test_results_come_in_the_order_of_the_items():
    second_done = threading.Event()

    def double(item):
        if item == 0:
            assert second_done.wait(10)  # the first ends after the second
        if item == 1:
            second_done.set()
        return 2 * item

    assert list(in_threads(double, range(20), n_threads=2)) == [2 * item for item in range(20)]


def test_endless_items_are_taken_only_a_little_ahead():
    taken = []

    def items():
        for item in itertools.count():
            taken.append(item)
            yield item

    found = in_threads(lambda item: item, items(), n_threads=2)
    assert [next(found) for _ in range(5)] == list(range(5))
    assert len(taken) <= 5 + 3
    found.close()
    assert len(taken) <= 5 + 3 and list(found) == []


def test_what_a_call_raises_is_raised_in_its_place():
    def invert(item):
        return 1 / item

    found = in_threads(invert, [1, 2, 0, 4], n_threads=2)
    assert [next(found), next(found)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_each_thread_works_on_tensors_alone_and_others_keep_their_number():
    before = torch.get_num_threads()
    seen = list(in_threads(lambda _: torch.get_num_threads(), range(4), n_threads=2))
    assert seen == [1] * 4 and torch.get_num_threads() == before
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [before]


def test_nothing_to_do():
    assert list(in_threads(abs, [])) == []

"""Seconds and memory of calls: against sleeps and blocks of memory whose size is known."""

import time

import pytest
import torch

from lasslab.evaluation.cost import MEMORY, Meter


def test_seconds_are_per_clip_and_the_first_call_does_not_decide(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("lasslab.evaluation.cost.time.perf_counter", lambda: clock[0])
    meter = Meter(torch.device("cpu"), 4)

    def call(seconds):
        clock[0] += seconds
        return "answer"

    for seconds, n_clips in ((4.0, 4), (0.4, 4), (0.2, 4), (0.06, 1), (0.4, 4)):
        assert meter.run(lambda seconds=seconds: call(seconds), n_clips=n_clips) == "answer"
    found = meter.to_json()
    assert found["seconds_per_clip"] == pytest.approx(0.1), "median of 1, 0.1, 0.05, 0.06 and 0.1"
    assert found["calls"] == 5 and found["batch_size"] == 4
    assert meter.total == pytest.approx(5.06)
    assert found["processor_seconds_per_clip"] < 0.05, "nobody worked: the clock was turned by hand"


def test_memory_is_what_the_call_needed_at_most():
    def call(n_bytes):
        block = torch.ones(n_bytes, dtype=torch.uint8)
        time.sleep(0.3)  # the watch looks every few milliseconds, on a busy machine now and then
        return int(block[-1])

    meter = Meter(torch.device("cpu"), 1)
    for n_bytes in (300_000_000, 1_000):
        meter.run(lambda n_bytes=n_bytes: call(n_bytes), n_clips=1)
    found = meter.to_json()
    assert 280e6 < found["memory_bytes"] < 400e6 and found["memory"] == MEMORY["cpu"]


def test_a_call_that_fails_is_not_counted():
    meter = Meter(torch.device("cpu"), 1)

    def broken():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        meter.run(broken, n_clips=1)
    assert meter.to_json() == {
        "seconds_per_clip": None,
        "processor_seconds_per_clip": None,
        "calls": 0,
        "batch_size": 1,
        "memory_bytes": None,
        "memory": MEMORY["cpu"],
    }


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_cuda_it_is_torch_s_own_peak():
    meter = Meter(torch.device("cuda"), 1)
    meter.run(lambda: torch.ones(100_000_000, dtype=torch.uint8, device="cuda").sum(), n_clips=1)
    assert meter.to_json()["memory_bytes"] >= 100e6 and meter.to_json()["memory"] == MEMORY["cuda"]

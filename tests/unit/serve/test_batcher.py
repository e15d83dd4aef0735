"""The queue and its worker, with a model made of nothing: turns, limits, what leaves the queue and when."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from zeroskip.serve.batcher import Batcher, Job, QueueFull


class Model:
    """The vector of a text is its first id and its length; runs wait for `go`."""

    features = 2

    def __init__(self):
        self.go = threading.Event()
        self.entered = threading.Event()
        self.runs = []
        self.wrong = None

    def vectors(self, ids):
        self.runs.append([int(item[0]) for item in ids])
        self.entered.set()
        assert self.go.wait(10)
        if self.wrong is not None:
            return np.full((len(ids), 2), self.wrong, np.float32)
        return np.array([[item[0], item.size] for item in ids], np.float32)


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def batcher():
    found = Batcher(batch_tokens=10, max_wait_s=0.05, queue_texts=20, on_run=lambda *_: None)
    yield found
    found.close()


def ids(first, length):
    return np.full(length, first, np.int32)


def submitted(batcher, model, *texts, normalize=False):
    done = threading.Event()
    job = Job(model, len(texts), normalize=normalize, done=lambda _: done.set())
    batcher.admit(job)
    batcher.put(job, 0, [ids(*text) for text in texts])
    return job, done


def blocked(batcher, model):
    """A run that is under way, so that everything after it waits."""
    _, done = submitted(batcher, model, (99, 1))
    assert model.entered.wait(5)
    return done


def test_rows_come_back_in_their_order(batcher, model):
    model.go.set()
    job, done = submitted(batcher, model, (1, 3), (2, 9), (3, 1), (4, 10), (5, 30))
    assert done.wait(5)
    assert job.vectors.tolist() == [[1, 3], [2, 9], [3, 1], [4, 10], [5, 30]]
    assert job.tokens == 53
    assert max(map(len, model.runs)) <= 2  # ten tokens a run, but for one longer text
    assert [5] in model.runs


def test_requests_take_turns(batcher, model):
    waiting = blocked(batcher, model)
    jobs = [submitted(batcher, model, *[(number, 5)] * 4) for number in (1, 2, 3)]
    model.go.set()
    assert waiting.wait(5)
    assert all(done.wait(5) for _, done in jobs)
    order = [number for run in model.runs[1:] for number in run]
    assert order == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]


def test_the_queue_is_bounded_and_says_for_how_long(batcher, model):
    blocked(batcher, model)
    submitted(batcher, model, *[(1, 1)] * 20)
    with pytest.raises(QueueFull) as full:
        submitted(batcher, model, (2, 1))
    assert full.value.retry_s == 1.0  # nothing measured yet
    model.go.set()
    until = time.monotonic() + 5
    while batcher.queued:
        assert time.monotonic() < until
        time.sleep(0.001)
    submitted(batcher, model, *[(3, 1)] * 20)


def test_dropped_texts_are_not_run(batcher, model):
    blocked(batcher, model)
    gone, never = submitted(batcher, model, (1, 2), (2, 2))
    _, done = submitted(batcher, model, (3, 2))
    batcher.drop(gone)
    batcher.drop(gone)
    assert batcher.queued == 1
    batcher.put(gone, 0, [ids(4, 2)])  # tokenised too late
    model.go.set()
    assert done.wait(5)
    assert model.runs == [[99], [3]]
    assert not never.is_set()


def test_a_job_that_leaves_in_the_middle_of_a_run_leaves_nothing(batcher, model):
    job, never = submitted(batcher, model, *[(1, 10)] * 5)
    assert model.entered.wait(5)
    batcher.drop(job)
    assert batcher.queued == 0
    _, done = submitted(batcher, model, (2, 1))
    model.go.set()
    assert done.wait(5)
    assert model.runs == [[1], [2]]
    assert not never.is_set()


def test_an_idle_worker_waits_for_what_is_being_tokenised(model):
    batcher = Batcher(batch_tokens=100, max_wait_s=5.0, queue_texts=20, on_run=lambda *_: None)
    model.go.set()
    late = Job(model, 1, normalize=False, done=lambda _: None)
    batcher.admit(late)
    _, done = submitted(batcher, model, (1, 1))
    time.sleep(0.05)
    assert model.runs == []
    batcher.put(late, 0, [ids(2, 1)])
    assert done.wait(2)
    assert sorted(model.runs[0]) == [1, 2]
    begin = time.monotonic()
    _, done = submitted(batcher, model, (3, 1))  # nothing on its way: no wait
    assert done.wait(2)
    assert time.monotonic() - begin < 1
    batcher.close()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_an_error(batcher, model, wrong):
    model.wrong = wrong
    model.go.set()
    job, done = submitted(batcher, model, (1, 1))
    assert done.wait(5)
    assert isinstance(job.error, ArithmeticError)
    assert batcher.queued == 0


def test_a_text_that_fails_does_not_fail_those_that_share_its_run(batcher, model):
    waiting = blocked(batcher, model)
    whole = model.vectors

    def picky(ids):
        if any(item[0] == 7 for item in ids):
            raise ValueError("no sevens")
        return whole(ids)

    good, first = submitted(batcher, model, (1, 2))
    bad, second = submitted(batcher, model, (7, 2), (8, 2))
    also, third = submitted(batcher, model, (2, 2))
    model.vectors = picky
    model.go.set()
    assert all(done.wait(5) for done in (waiting, first, second, third))
    assert (good.error, also.error) == (None, None)
    assert good.vectors.tolist() == [[1, 2]]
    assert also.vectors.tolist() == [[2, 2]]
    assert isinstance(bad.error, ValueError)
    assert batcher.queued == 0


def test_only_those_who_want_it_get_length_1(batcher, model):
    waiting = blocked(batcher, model)
    plain, first = submitted(batcher, model, (3, 4))
    scaled, second = submitted(batcher, model, (3, 4), normalize=True)
    model.go.set()
    assert waiting.wait(5)
    assert first.wait(5)
    assert second.wait(5)
    assert len(model.runs) == 2
    assert plain.vectors.tolist() == [[3, 4]]
    np.testing.assert_allclose(scaled.vectors, [[0.6, 0.8]], rtol=1e-6)


def test_models_do_not_share_a_run(batcher, model):
    """A request that waits while the model is replaced gets the one that it was tokenised for."""
    waiting = blocked(batcher, model)
    other = Model()
    other.go.set()
    _, first = submitted(batcher, model, (1, 1))
    _, second = submitted(batcher, other, (2, 1))
    model.go.set()
    assert waiting.wait(5)
    assert first.wait(5)
    assert second.wait(5)
    assert model.runs == [[99], [1]]
    assert other.runs == [[2]]

"""The queue: batches form greedily, nobody starves, nobody is harmed by a neighbour."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from domains.contract import Sample
from groundwork.api.batching import Batcher, QueueFull


def sample(value: float) -> Sample:
    return {"value": np.array([value], dtype=np.float32)}


class Model:
    """Doubles; holds the inference thread until it is let go; remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        self.entered.set()
        assert self.gate.wait(10)
        values = [float(each["value"][0]) for each in samples]
        if -1.0 in values:
            raise ValueError("poison")
        self.batches.append(values)
        return 2 * np.array(values, dtype=np.float32)[:, None]

    async def blocked(self) -> None:
        while not self.entered.is_set():
            await asyncio.sleep(0.001)


async def one(batcher: Batcher, value: float, tokens: int = 1) -> float:
    with batcher.admit(1) as turn:
        return float((await turn.predict([sample(value)], [tokens]))[0, 0])


async def many(batcher: Batcher, values: Sequence[float], tokens: int = 1) -> list[float]:
    with batcher.admit(len(values)) as turn:
        return (await turn.predict([sample(v) for v in values], [tokens] * len(values)))[:, 0].tolist()


def test_outputs_come_back_in_the_order_of_their_samples() -> None:
    async def scenario() -> None:
        batcher = Batcher(Model(), max_items=4)
        values = list(range(50))
        with batcher.admit(50) as turn:
            outputs = await turn.predict([sample(v) for v in values], [1 + v * 7 % 40 for v in values])
        assert outputs[:, 0].tolist() == [2 * v for v in values]
        assert batcher.held == 0
        batcher.close()

    asyncio.run(scenario())


def test_what_waits_while_the_model_is_busy_becomes_one_batch() -> None:
    async def scenario() -> None:
        model = Model()
        model.gate.clear()
        batcher = Batcher(model)
        first = asyncio.create_task(one(batcher, 0))
        await model.blocked()
        rest = [asyncio.create_task(one(batcher, value)) for value in range(1, 11)]
        await asyncio.sleep(0.01)
        model.gate.set()
        await asyncio.gather(first, *rest)
        assert model.batches == [[0], list(range(1, 11))]
        batcher.close()

    asyncio.run(scenario())


def test_batches_hold_samples_of_like_length_within_the_token_limit() -> None:
    async def scenario() -> None:
        model = Model()
        model.gate.clear()
        batcher = Batcher(model, max_items=100, max_tokens=200)
        first = asyncio.create_task(one(batcher, 0))
        await model.blocked()
        short = [asyncio.create_task(one(batcher, value, tokens=10)) for value in range(1, 31)]
        long = [asyncio.create_task(one(batcher, 100 + value, tokens=90)) for value in range(4)]
        huge = asyncio.create_task(one(batcher, 500, tokens=1000))
        await asyncio.sleep(0.01)
        model.gate.set()
        await asyncio.gather(first, huge, *short, *long)
        sizes = [len(batch) for batch in model.batches[1:]]
        assert all(len({value >= 100 for value in batch}) == 1 for batch in model.batches)
        assert sorted(sizes) == [1, 2, 2, 10, 20]
        assert [500.0] in model.batches  # longer than the limit, and alone
        batcher.close()

    asyncio.run(scenario())


def test_a_single_sample_does_not_wait_for_another_clients_thousands() -> None:
    async def scenario() -> None:
        model = Model()
        batcher = Batcher(model, max_items=8, capacity=10_000)
        model.gate.clear()
        flood = asyncio.create_task(many(batcher, list(range(4000))))
        await model.blocked()
        single = asyncio.create_task(one(batcher, 9999))
        other_length = asyncio.create_task(one(batcher, 8888, tokens=300))
        await asyncio.sleep(0.01)
        model.gate.set()
        assert await single == 2 * 9999
        assert await other_length == 2 * 8888
        before = next(i for i, batch in enumerate(model.batches) if 9999 in batch)
        assert before == 1
        assert next(i for i, batch in enumerate(model.batches) if 8888 in batch) <= 3
        assert await flood == [2 * value for value in range(4000)]
        batcher.close()

    asyncio.run(scenario())


def test_a_full_queue_refuses_and_frees_its_room_again() -> None:
    async def scenario() -> None:
        model = Model()
        model.gate.clear()
        batcher = Batcher(model, capacity=10)
        waiting = asyncio.create_task(many(batcher, list(range(10))))
        await model.blocked()
        with pytest.raises(QueueFull, match="try again"):
            batcher.admit(1)
        model.gate.set()
        await waiting
        assert await one(batcher, 3) == 6
        with batcher.admit(25):  # larger than the queue, but nobody else is there
            pass
        batcher.close()

    asyncio.run(scenario())


def test_cancelled_requests_are_not_predicted() -> None:
    async def scenario() -> None:
        model = Model()
        model.gate.clear()
        batcher = Batcher(model)
        first = asyncio.create_task(one(batcher, 0))
        await model.blocked()
        left = asyncio.create_task(many(batcher, [1, 2, 3]))
        stayed = asyncio.create_task(one(batcher, 4))
        await asyncio.sleep(0.01)
        left.cancel()
        await asyncio.sleep(0.01)
        assert batcher.held == 2
        model.gate.set()
        assert await stayed == 8
        await first
        assert model.batches == [[0], [4]]
        batcher.close()

    asyncio.run(scenario())


def test_a_sample_that_breaks_the_model_fails_alone() -> None:
    async def scenario() -> None:
        model = Model()
        model.gate.clear()
        batcher = Batcher(model)
        first = asyncio.create_task(one(batcher, 0))
        await model.blocked()
        good = [asyncio.create_task(one(batcher, value)) for value in range(1, 8)]
        poisoned = asyncio.create_task(one(batcher, -1))
        await asyncio.sleep(0.01)
        model.gate.set()
        assert await asyncio.gather(*good) == [2 * value for value in range(1, 8)]
        with pytest.raises(ValueError, match="poison"):
            await poisoned
        assert await first == 0
        assert await one(batcher, 5) == 10  # and the queue lives on
        batcher.close()

    asyncio.run(scenario())


def test_closing_cancels_what_waits() -> None:
    async def scenario() -> None:
        model = Model()
        model.gate.clear()
        batcher = Batcher(model)
        running = asyncio.create_task(one(batcher, 0))
        await model.blocked()
        waiting = asyncio.create_task(one(batcher, 1))
        await asyncio.sleep(0.01)
        batcher.close()
        model.gate.set()
        results = await asyncio.wait_for(asyncio.gather(running, waiting, return_exceptions=True), 5)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 2

    asyncio.run(scenario())

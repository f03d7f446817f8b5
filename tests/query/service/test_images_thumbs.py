"""Thumbnails in memory."""

import asyncio

import pytest

from query.service.images.thumbs import Thumbs


class Counting:
    """Decoders that count, for `Thumbs`."""

    def __init__(self, size=1000):
        self.size, self.asked, self.go = size, [], asyncio.Event()

    async def thumbnail(self, uri):
        self.asked.append(uri)
        await self.go.wait()
        return f"no {uri}" if uri.startswith("bad") else uri.encode().ljust(self.size)


def test_a_thumbnail_that_many_ask_for_is_made_once():
    async def look():
        decoders = Counting()
        thumbs = Thumbs(decoders, 10_000)
        many = [asyncio.create_task(thumbs.get(("s", "v", 1), "a")) for _ in range(10)]
        await asyncio.sleep(0)
        many[0].cancel()  # who made it first goes away
        decoders.go.set()
        found = await asyncio.gather(*many[1:])
        assert len(set(found)) == 1
        await thumbs.get(("s", "v", 1), "a")
        assert decoders.asked == ["a"]
        for other in (("t", "v", 1), ("s", "w", 1), ("s", "v", 2)):
            await thumbs.get(other, "a")
        assert len(decoders.asked) == 4

    asyncio.run(look())


def test_thumbnails_take_bounded_memory_and_the_oldest_go_first():
    async def look():
        decoders = Counting()
        decoders.go.set()
        thumbs = Thumbs(decoders, 5_000)
        for number in range(50):
            await thumbs.get(("s", "v", 0), "0")
            await thumbs.get(("s", "v", number), f"{number}")
            assert thumbs.num_bytes <= 5_000
        assert decoders.asked == [f"{number}" for number in range(50)]  # what is asked for stays
        await thumbs.get(("s", "v", 5), "5")
        assert decoders.asked[-1] == "5"

    asyncio.run(look())


def test_nothing_is_kept_without_memory_for_it():
    async def look():
        decoders = Counting()
        decoders.go.set()
        thumbs = Thumbs(decoders, 0)
        assert len(await thumbs.get(("s", "v", 0), "a")) == 1000
        assert thumbs.num_bytes == 0

    asyncio.run(look())


@pytest.mark.parametrize(("kept_s", "times"), [(60, 1), (0, 2)])
def test_an_image_that_failed_is_tried_again_later(monkeypatch, kept_s, times):
    monkeypatch.setattr("query.service.images.thumbs.FAILURE_KEPT_S", kept_s)

    async def look():
        decoders = Counting()
        decoders.go.set()
        thumbs = Thumbs(decoders, 5_000)
        for _ in range(2):
            assert await thumbs.get(("s", "v", 0), "bad") == "no bad"
        assert decoders.asked == ["bad"] * times

    asyncio.run(look())

"""The drill of hostile requests, in short. The whole one is `tests/drills/service/hostile.py`."""

from tests.drills.service.attacks import Attack
from tests.drills.service.hostile import Judge, attack_all


def test_hostile_requests_do_no_harm(photos_store, second_store):
    outcome = attack_all((photos_store, second_store), num=500, seed=7, is_slow=False)
    assert not outcome.violations, outcome.table()
    assert sum(counts.total() for counts in outcome.counts.values()) == 500


def test_the_judge_of_the_drill_sees_harm(service, photos_store):
    judge = Judge(service.url, [photos_store])
    attack = Attack("text", (b"",), "GET", "/search?text=dog")
    assert not list(judge.violations(attack, b"HTTP/1.1 422 Unprocessable Content\r\n\r\n"))
    for answer in (
        b"HTTP/1.1 500 Internal Server Error\r\n\r\n",
        b"HTTP/1.1 418 I'm a Teapot\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + str(photos_store.resolve().parent).encode(),
        b"HTTP/1.1 200 OK\r\n\r\nroot:x:0:0:root",
    ):
        assert list(judge.violations(attack, answer)), answer

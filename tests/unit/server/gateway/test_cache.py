"""Where the gateway keeps embeddings: memory with a bound, and a Redis that may be away."""

from __future__ import annotations

import logging
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.dual_encoder import FakeTransport
from lychee_client import CacheUse, LycheeClient, MemoryEmbeddingCache
from lychee_client.memory_cache import ENTRY_OVERHEAD_BYTES
from lychee_server.defaults import MIB
from lychee_server.errors import SettingsError
from lychee_server.gateway.cache import (
    REDIS_CHUNK,
    REDIS_PAUSE_S,
    RedisEmbeddingCache,
    make_cache,
)
from lychee_server.gateway.settings import GatewaySettings

VALUE = bytes(100)
ENTRY_BYTES = 32 + len(VALUE) + ENTRY_OVERHEAD_BYTES
SECRET = "hunter2"


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_memory_gives_back_what_was_put() -> None:
    cache = MemoryEmbeddingCache(MIB)
    cache.put_many({key(1): b"one", key(2): b"two"})
    assert cache.get_many([key(2), key(3), key(1)]) == [b"two", None, b"one"]
    statistics = cache.statistics()
    assert (statistics.backend, statistics.entries, statistics.max_bytes) == ("memory", 2, MIB)
    assert (statistics.hits, statistics.misses, statistics.evictions, statistics.failures) == (2, 1, 0, 0)


def test_memory_forgets_what_was_not_used_for_longest() -> None:
    cache = MemoryEmbeddingCache(10 * ENTRY_BYTES)
    for number in range(10):
        cache.put_many({key(number): VALUE})
    cache.get_many([key(0)])
    cache.put_many({key(10): VALUE, key(11): VALUE})
    found = cache.get_many([key(number) for number in range(12)])
    assert [number for number, value in enumerate(found) if value is None] == [1, 2]
    statistics = cache.statistics()
    assert (statistics.entries, statistics.bytes, statistics.evictions) == (10, 10 * ENTRY_BYTES, 2)


def test_memory_counts_a_replaced_entry_once() -> None:
    cache = MemoryEmbeddingCache(MIB)
    for value in (VALUE, VALUE * 3, b""):
        cache.put_many({key(1): value})
        assert cache.statistics().bytes == 32 + len(value) + ENTRY_OVERHEAD_BYTES
    cache.close()
    assert (cache.statistics().entries, cache.statistics().bytes) == (0, 0)


def test_memory_keeps_no_entry_that_would_push_out_too_many() -> None:
    cache = MemoryEmbeddingCache(8 * ENTRY_BYTES)
    cache.put_many({key(1): VALUE, key(2): VALUE + b"x"})
    assert cache.get_many([key(1), key(2)]) == [VALUE, None]


def test_memory_takes_what_it_says() -> None:
    value_bytes = 1564  # an entry of lychee-mini
    values = [bytes([number % 256]) * value_bytes for number in range(500)]
    cache = MemoryEmbeddingCache(64 * MIB)
    tracemalloc.start()
    try:
        for number, value in enumerate(values):
            cache.put_many({key(number): value[:-1] + b"x"})
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    counted = cache.statistics().bytes
    assert counted is not None
    assert 0.9 * counted < taken < 1.1 * counted


def test_memory_stands_several_threads() -> None:
    cache = MemoryEmbeddingCache(20 * ENTRY_BYTES)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for number in range(300):
                cache.put_many({key((seed * 7 + number) % 50): VALUE})
                cache.get_many([key(number % 50)])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval_s)
    statistics = cache.statistics()
    assert errors == []
    assert statistics.bytes == (statistics.entries or 0) * ENTRY_BYTES <= 20 * ENTRY_BYTES
    assert statistics.hits + statistics.misses == 1200


def test_memory_serves_a_client() -> None:
    cache = MemoryEmbeddingCache(MIB)
    with LycheeClient(transport=FakeTransport(), embedding_cache=cache) as client:
        assert client.rerank("q", ["a", "b"]).embedding_cache == CacheUse(0, 2)
        assert client.rerank("other", ["b", "c"]).embedding_cache == CacheUse(1, 1)
    assert (cache.statistics().hits, cache.statistics().misses, cache.statistics().entries) == (1, 3, 3)


def test_settings_choose_the_cache(tmp_path: Path) -> None:
    assert make_cache(GatewaySettings(cache_mb=0)) is None
    assert make_cache(GatewaySettings(cache_mb=0, redis_url="redis://127.0.0.1:1")) is None
    memory = make_cache(GatewaySettings(cache_mb=3))
    assert isinstance(memory, MemoryEmbeddingCache)
    assert memory.statistics().max_bytes == 3 * MIB
    redis = make_cache(GatewaySettings(redis_url="redis://127.0.0.1:1"))
    assert isinstance(redis, RedisEmbeddingCache)
    assert redis.statistics().backend == "redis"


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@host:6379",
        "user:hunter2@host:6379",
        "redis://user:hunter2@host:port",
        "redis://user:hunter2@host:99999",
        "redis://user:hunter2@",
        "redis://user:hunter2@host/cache",
        "redis://user:hunter2@host?decode_responses=True",
        "redis://user:hunter2@host?ssl_ca_certs=ca.pem",
        "redis://user:hunter2@host#fragment",
        "rediss://user:hunter2@host?ssl_unknown=1",
        "redis://user:hunter2@[::1",
        "unix://",
        "",
    ],
)
def test_url_that_cannot_be_used_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SettingsError, match="--redis-url") as caught:
        RedisEmbeddingCache(url)
    seen: BaseException | None = caught.value
    while seen is not None:
        assert SECRET not in str(seen)
        seen = seen.__cause__


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://:{SECRET}@cache", "Redis at cache:6379"),
        (f"redis://user:{SECRET}@cache:7000/3", "Redis at cache:7000"),
        (f"rediss://user:{SECRET}@cache:7000/?ssl_ca_certs=ca.pem", "Redis at cache:7000"),
        ("unix:///run/redis.sock", "Redis at /run/redis.sock"),
    ],
)
def test_password_is_not_shown(url: str, shown: str) -> None:
    cache = RedisEmbeddingCache(url)
    assert repr(cache) == f"RedisEmbeddingCache({shown!r})"


def test_missing_redis_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(SettingsError, match=r"lychee-rerank-server\[redis\]"):
        RedisEmbeddingCache("redis://cache")


class Clock:
    """Goes on when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeRedis:
    """What the cache uses of redis-py; raises what the test orders."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.commands: list[str] = []
        self.fail: dict[str, Exception] = {}
        self._pending: dict[str, bytes] = {}

    def mget(self, names: list[str]) -> list[bytes | None]:
        self._note("read")
        assert len(names) <= REDIS_CHUNK
        return [self.values.get(name) for name in names]

    def pipeline(self, transaction: bool) -> FakeRedis:
        assert not transaction
        self._pending = {}
        return self

    def set(self, name: str, value: bytes, ex: int) -> None:
        assert ex == 60
        self._pending[name] = value

    def execute(self) -> None:
        self._note("write")
        self.values |= self._pending

    def __enter__(self) -> FakeRedis:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def _note(self, command: str) -> None:
        self.commands.append(command)
        if command in self.fail:
            raise self.fail[command]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fake() -> FakeRedis:
    return FakeRedis()


@pytest.fixture
def cache(fake: FakeRedis, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisEmbeddingCache]:
    monkeypatch.setattr("lychee_server.gateway.cache._connect", lambda url: fake)
    return RedisEmbeddingCache(f"redis://:{SECRET}@cache", clock=clock, ttl_s=60, max_bytes_per_entry=100)


def outage() -> Exception:
    from redis.exceptions import ConnectionError

    return ConnectionError(f"cannot reach redis://:{SECRET}@cache")


def test_redis_gives_back_what_was_put_and_nothing_too_large(fake: FakeRedis, cache: RedisEmbeddingCache) -> None:
    entries = {key(number): VALUE for number in range(REDIS_CHUNK + 1)}
    cache.put_many({**entries, key(1000): VALUE + b"x"})
    assert list(fake.values)[1] == f"lychee:1:{key(1).hex()}"
    assert cache.get_many([*entries, key(1000)]) == [*entries.values(), None]
    assert fake.commands == ["write", "write", "read", "read"]
    assert (cache.statistics().hits, cache.statistics().misses) == (REDIS_CHUNK + 1, 1)


def test_outage_is_asked_about_now_and_then_and_logged_once(
    fake: FakeRedis, cache: RedisEmbeddingCache, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cache.put_many({key(1): VALUE})
    fake.fail = {"read": outage(), "write": outage()}
    fake.commands.clear()
    for _ in range(3):
        assert cache.get_many([key(1)]) == [None]
        cache.put_many({key(2): VALUE})
    assert fake.commands == ["read"]
    clock.now += REDIS_PAUSE_S
    cache.get_many([key(1)])
    assert fake.commands == ["read", "read"]
    assert (cache.statistics().failures, cache.statistics().misses) == (2, 4)
    assert len(caplog.records) == 1

    fake.fail.clear()
    clock.now += REDIS_PAUSE_S
    assert cache.get_many([key(1)]) == [VALUE]
    cache.put_many({key(2): VALUE})
    assert cache.get_many([key(2)]) == [VALUE]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert SECRET not in caplog.text
    fake.fail = {"read": outage()}
    cache.get_many([key(1)])
    assert len(caplog.records) == 3


def test_redis_that_only_refuses_to_write_is_still_read(
    fake: FakeRedis, cache: RedisEmbeddingCache, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    from redis.exceptions import OutOfMemoryError

    cache.put_many({key(1): VALUE})
    fake.fail = {"write": OutOfMemoryError("command not allowed")}
    for _ in range(2):
        cache.put_many({key(2): VALUE})
        assert cache.get_many([key(1)]) == [VALUE]
    assert fake.commands == ["write", "write", "read", "read"]
    assert "does not write (OutOfMemoryError)" in caplog.text


def test_client_is_served_without_redis() -> None:
    cache: Any = RedisEmbeddingCache("redis://127.0.0.1:1")
    with LycheeClient(transport=FakeTransport(), embedding_cache=cache) as client:
        for _ in range(2):
            assert client.rerank("q", ["a"]).embedding_cache == CacheUse(0, 1)
    assert cache.statistics().failures == 1
    cache.close()

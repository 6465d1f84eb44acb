"""The gateway's embedding cache in a real Redis: shared, away, back again, full, and with values of others."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.dual_encoder import FakeTransport
from lychee_client import CacheUse, LycheeClient
from lychee_server.gateway.cache import REDIS_PAUSE_S, REDIS_PREFIX, RedisEmbeddingCache
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

DOCUMENTS = [f"document {number}" for number in range(20)]
# Debian's redis-tools has the server's binary under the name of a tool; it acts by the name that it is called by.
SERVERS = ("redis-server", "valkey-server", "redis-check-rdb")


class RedisServer:
    """A Redis on a free port of the loopback, without files.

    Args:
        folder: To work in.
    """

    def __init__(self, folder: Path) -> None:
        found = [path for name in SERVERS if (path := shutil.which(name))]
        if not found:
            pytest.skip("no Redis at hand; install redis-server or redis-tools")
        self._executable = found[0]
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return as soon as it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with (self._folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", *options], executable=self._executable, cwd=self._folder, stdout=log, stderr=log
            )
        with Redis(port=self.port, retry=Retry(ConstantBackoff(0.02), 200)) as client:
            client.ping()

    def kill(self) -> None:
        """End at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        os.kill(self.process.pid, number)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def admin(server: RedisServer) -> Iterator[Redis]:
    with Redis(port=server.port) as client:
        yield client


class Clock:
    """Goes on when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_cache(server: RedisServer, clock: Clock) -> Iterator[Callable[[], RedisEmbeddingCache]]:
    made: list[RedisEmbeddingCache] = []

    def make() -> RedisEmbeddingCache:
        made.append(RedisEmbeddingCache(server.url, clock=clock))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def use(cache: RedisEmbeddingCache, documents: list[str] = DOCUMENTS) -> CacheUse | None:
    """Rank the documents; all of them must be ranked, whatever becomes of the cache."""
    with LycheeClient(transport=FakeTransport(), embedding_cache=cache) as client:
        response = client.rerank("a query", documents)
    assert len(response.results) == len(documents)
    return response.embedding_cache


def test_two_gateways_share_embeddings(make_cache: Callable[[], RedisEmbeddingCache], admin: Redis) -> None:
    first, second = make_cache(), make_cache()
    assert use(first) == CacheUse(0, 20)
    assert use(second) == CacheUse(20, 0)
    assert (first.statistics().misses, second.statistics().hits) == (20, 20)
    keys = admin.keys("*")
    assert len(keys) == 20
    assert all(key.startswith(REDIS_PREFIX.encode()) for key in keys)
    assert 0 < admin.ttl(keys[0]) <= 7 * 24 * 3600


def test_calls_outlive_redis_and_find_it_again(
    make_cache: Callable[[], RedisEmbeddingCache], server: RedisServer, clock: Clock
) -> None:
    cache = make_cache()
    use(cache)
    assert use(cache) == CacheUse(20, 0)
    server.kill()
    assert use(cache) == CacheUse(0, 20)
    assert use(cache) == CacheUse(0, 20)
    assert cache.statistics().failures == 1
    server.start()  # empty
    clock.now += REDIS_PAUSE_S
    assert use(cache) == CacheUse(0, 20)
    assert use(cache) == CacheUse(20, 0)
    assert cache.statistics().failures == 1


def test_restart_within_a_pause_costs_no_failure(
    make_cache: Callable[[], RedisEmbeddingCache], server: RedisServer
) -> None:
    cache = make_cache()
    use(cache)
    server.kill()
    server.start()
    assert use(cache) == CacheUse(0, 20)  # over a new connection
    assert use(cache) == CacheUse(20, 0)
    assert cache.statistics().failures == 0


def test_redis_that_hangs_holds_no_call_up(
    make_cache: Callable[[], RedisEmbeddingCache], server: RedisServer, clock: Clock
) -> None:
    cache = make_cache()
    use(cache)
    server.signal(signal.SIGSTOP)
    assert use(cache) == CacheUse(0, 20)
    server.signal(signal.SIGCONT)
    clock.now += REDIS_PAUSE_S
    assert use(cache) == CacheUse(20, 0)


def test_foreign_values_under_our_keys_are_misses(make_cache: Callable[[], RedisEmbeddingCache], admin: Redis) -> None:
    cache = make_cache()
    use(cache)
    text, number, listed, *_ = sorted(admin.keys("*"))
    admin.set(text, "somebody else's")
    admin.set(number, 7)
    admin.delete(listed)
    admin.rpush(listed, "a", "b")
    assert use(cache) == CacheUse(17, 3)
    assert use(cache) == CacheUse(20, 0)  # ours again


def test_full_redis_is_still_read(make_cache: Callable[[], RedisEmbeddingCache], admin: Redis, clock: Clock) -> None:
    cache = make_cache()
    use(cache)
    admin.config_set("maxmemory-policy", "noeviction")
    admin.config_set("maxmemory", 1)
    assert use(cache, [*DOCUMENTS, "one more"]) == CacheUse(20, 1)
    assert use(cache, [*DOCUMENTS, "one more"]) == CacheUse(20, 1)
    assert cache.statistics().failures == 1
    admin.config_set("maxmemory", 0)
    clock.now += REDIS_PAUSE_S
    use(cache, ["one more"])
    assert use(cache, ["one more"]) == CacheUse(1, 0)


def test_redis_with_a_memory_limit_forgets_the_oldest(
    make_cache: Callable[[], RedisEmbeddingCache], admin: Redis
) -> None:
    cache = make_cache()
    use(cache)  # connections take memory too
    limit = admin.info("memory")["used_memory"] + 200_000
    admin.config_set("maxmemory-policy", "allkeys-lru")
    admin.config_set("maxmemory", limit)
    for number in range(8):
        use(cache, [f"{number} of {part}" for part in range(250)])
    assert admin.info("memory")["used_memory"] <= limit
    assert admin.info("stats")["evicted_keys"] > 0
    assert cache.statistics().failures == 0

"""Where the gateway keeps embeddings of documents and scores of pairs: in its memory, or in a Redis that many share."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, TypeVar, cast
from urllib.parse import parse_qs, urlsplit

from lychee_client import CacheStatistics, MemoryEmbeddingCache

from lychee_server.defaults import MIB
from lychee_server.errors import SettingsError
from lychee_server.gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from redis import Redis

DEFAULT_TTL_S: Final = 7 * 24 * 3600
MAX_REDIS_ENTRY_BYTES: Final = 64 * 1024
REDIS_PREFIX: Final = "lychee:1:"
REDIS_TIMEOUT_S: Final = 0.2
REDIS_PAUSE_S: Final = 5.0
REDIS_CHUNK: Final = 256  # keys per command: Redis does one command at a time, for all its users
_SCHEMES: Final = ("redis", "rediss", "unix")
_DATABASE: Final = re.compile("/?|/[0-9]+/?")
_TLS_OPTIONS: Final = {"ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"}

_logger = logging.getLogger(__name__)

T = TypeVar("T")

_Direction: TypeAlias = Literal["read", "write"]
_DIRECTIONS: Final[tuple[_Direction, ...]] = ("read", "write")


class RedisEmbeddingCache:
    """Keeps embeddings in a Redis; see EmbeddingCache.

    While Redis does not answer nothing is found and nothing kept, and it is asked only every REDIS_PAUSE_S seconds. An
    outage is logged when it begins and when it ends. How much it keeps is Redis's own `maxmemory`, best with the policy
    `allkeys-lru`.

    Args:
        url: redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss:// with TLS, unix:///PATH. After rediss://
            may come redis-py's options ssl_ca_certs, ssl_certfile, ssl_keyfile, ssl_cert_reqs and ssl_check_hostname.
        max_bytes_per_entry: The size of the largest embedding that is kept.
        ttl_s: An entry is forgotten so many seconds after it was put there.
        prefix: What every key in Redis begins with; the key itself follows in hex.
        clock: Tells the seconds since any moment.

    Raises:
        SettingsError: The URL cannot be used, or redis-py is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        max_bytes_per_entry: int = MAX_REDIS_ENTRY_BYTES,
        ttl_s: int = DEFAULT_TTL_S,
        prefix: str = REDIS_PREFIX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = _connect(url)
        self._where = _where(url)
        self._max_bytes_per_entry = max_bytes_per_entry
        self._ttl_s = ttl_s
        self._prefix = prefix
        self._clock = clock
        self._lock = threading.Lock()
        self._asks_again_at: dict[_Direction, float] = {}  # without those that worked the last time
        self._hits = self._misses = self._failures = 0

    def __repr__(self) -> str:
        return f"RedisEmbeddingCache({self._where!r})"

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See EmbeddingCache."""
        found: list[bytes | None] = []
        for chunk in _chunks(keys):
            values = self._ask("read", partial(self._redis.mget, self._names(chunk)))
            found += [None] * len(chunk) if values is None else cast("list[bytes | None]", values)
        hits = sum(value is not None for value in found)
        with self._lock:
            self._hits += hits
            self._misses += len(found) - hits
        return found

    def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        """See EmbeddingCache."""
        small = [key for key, value in entries.items() if len(value) <= self._max_bytes_per_entry]
        for chunk in _chunks(small):
            self._ask("write", partial(self._put, {key: entries[key] for key in chunk}))

    def statistics(self) -> CacheStatistics:
        """Return how this process uses the cache. Asks Redis nothing."""
        with self._lock:
            return CacheStatistics("redis", None, None, None, self._hits, self._misses, 0, self._failures)

    def close(self) -> None:
        """Release the connections."""
        self._redis.close()

    def _names(self, keys: Sequence[bytes]) -> list[str]:
        return [self._prefix + key.hex() for key in keys]

    def _put(self, entries: Mapping[bytes, bytes]) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            for name, value in zip(self._names(list(entries)), entries.values(), strict=True):
                pipeline.set(name, value, ex=self._ttl_s)
            pipeline.execute()

    def _ask(self, direction: _Direction, command: Callable[[], T]) -> T | None:
        """Return what Redis answers, or None while it does not."""
        from redis.exceptions import RedisError

        with self._lock:
            if self._clock() < self._asks_again_at.get(direction, float("-inf")):
                return None
        try:
            answer = command()
        except (RedisError, OSError) as error:
            self._note_failure(direction, error)
            return None
        with self._lock:
            recovered = self._asks_again_at.pop(direction, None) is not None and not self._asks_again_at
        if recovered:
            _logger.info("%s does again what it is asked", self._where)
        return answer

    def _note_failure(self, direction: _Direction, error: Exception) -> None:
        """Ask no more for a while: Redis may refuse to write and still be read, but without a connection does nothing.

        The error's own text is not logged: it may quote the URL.
        """
        from redis.exceptions import ResponseError

        directions: tuple[_Direction, ...] = (direction,) if isinstance(error, ResponseError) else _DIRECTIONS
        with self._lock:
            first = not self._asks_again_at
            self._asks_again_at |= dict.fromkeys(directions, self._clock() + REDIS_PAUSE_S)
            self._failures += 1
        if first:
            _logger.warning(
                "%s does not %s (%s); what it does not keep is computed again. Check that it runs, its memory limit, "
                "and user and password in --redis-url",
                self._where,
                direction,
                type(error).__name__,
            )


def _chunks(keys: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(keys), REDIS_CHUNK):
        yield keys[start : start + REDIS_CHUNK]


def _connect(url: str) -> Redis:
    """Return a client that has not connected yet.

    Raises:
        SettingsError: See RedisEmbeddingCache.
    """
    try:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise SettingsError(
            "--redis-url is given, but redis-py is not installed; pip install 'lychee-rerank-server[redis]'"
        ) from error
    expected = "expected redis://[USER:PASSWORD@]HOST:PORT/DATABASE, rediss:// with TLS, or unix:///PATH"
    try:  # a message must not show the URL: it may hold a password
        parts = urlsplit(url)
        is_socket = parts.scheme == "unix"
        if parts.scheme not in _SCHEMES or not (parts.path.strip("/") if is_socket else parts.hostname):
            raise SettingsError(f"--redis-url has an unknown scheme, or no host; {expected}")
        if not is_socket and not _DATABASE.fullmatch(parts.path):
            raise SettingsError(f"--redis-url has a database that is no number; {expected}")
        if parse_qs(parts.query).keys() - (_TLS_OPTIONS if parts.scheme == "rediss" else set()) or parts.fragment:
            raise SettingsError(
                f"--redis-url has unknown options; {expected}, and options ({', '.join(sorted(_TLS_OPTIONS))}) only "
                "after rediss://"
            )
        retry = Retry(NoBackoff(), 1)  # a connection that was closed meanwhile is made anew
        return Redis.from_url(url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S, retry=retry)
    except SettingsError:
        raise
    except (ValueError, TypeError):
        raise SettingsError(f"--redis-url cannot be read; {expected}") from None


def _where(url: str) -> str:
    """Return the URL's address, without what may be secret."""
    parts = urlsplit(url)
    return f"Redis at {parts.path}" if parts.scheme == "unix" else f"Redis at {parts.hostname}:{parts.port or 6379}"


def make_cache(settings: GatewaySettings) -> MemoryEmbeddingCache | RedisEmbeddingCache | None:
    """Return the cache that the settings ask for; None where `cache_mb` is 0.

    Raises:
        SettingsError: The URL of the Redis cannot be used.
    """
    if not settings.cache_mb:
        return None
    if settings.redis_url is not None:
        return RedisEmbeddingCache(settings.redis_url)
    return MemoryEmbeddingCache(settings.cache_mb * MIB)

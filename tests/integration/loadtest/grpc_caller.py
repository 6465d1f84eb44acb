"""Ranks with several greenlets at the same time, over gRPC, as the load test's users do.

    grpc_caller.py URL CALLERS

Prints `ready` when the client knows the model, and `answered N` when N calls have their answers.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()  # as `import locust` does

import sys  # noqa: E402

import gevent.pool  # noqa: E402
from grpc.experimental import gevent as grpc_gevent  # noqa: E402
from lychee_client import LycheeClient  # noqa: E402


def main() -> None:
    """See above."""
    url, callers = sys.argv[1], int(sys.argv[2])
    grpc_gevent.init_gevent()
    with LycheeClient(url, max_retries=0, timeout_s=30) as client:
        assert client.manifest().family
        print("ready", flush=True)
        pool = gevent.pool.Pool(callers)
        answers = pool.map(lambda number: client.rerank(f"cat {number}", ["a cup of coffee"]), range(callers))
    print("answered", sum(len(answer.results) for answer in answers), flush=True)


main()

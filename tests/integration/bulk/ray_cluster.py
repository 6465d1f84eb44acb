"""A Ray cluster on this machine, in a process of its own: it prints its address, loses a node for each line, and ends.

Ray's own modules warn of each other, which is an error where tests run.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings

STORE_BYTES = 80 * 2**20


def main(nodes: int) -> None:
    """Run until standard input ends."""
    warnings.simplefilter("ignore")
    node = {"num_cpus": 4, "num_gpus": 0, "object_store_memory": STORE_BYTES}
    with tempfile.TemporaryDirectory(prefix="lychee-ray-", dir="/tmp") as folder:  # paths of sockets are short
        os.environ["RAY_TMPDIR"] = folder
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        others = [cluster.add_node(**node) for _ in range(nodes - 1)]
        print(cluster.address, flush=True)
        try:
            for _ in sys.stdin:
                cluster.remove_node(others.pop(), allow_graceful=False)
                print("lost", flush=True)
        finally:
            cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))

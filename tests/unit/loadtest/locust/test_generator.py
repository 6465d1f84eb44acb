"""Whether the load generator itself keeps up."""

from __future__ import annotations

import json
import time

import gevent
from lychee_loadtest.locust.generator import INTERVAL_S, HubMonitor, HubUse

BLOCKED_S = 0.3


def test_an_event_loop_that_was_held_up_is_noticed() -> None:
    monitor = HubMonitor(window_s=0.05)
    monitor.start()
    gevent.sleep(2 * INTERVAL_S)
    time.sleep(BLOCKED_S)  # as a driver that waits without letting the others run
    gevent.sleep(2 * INTERVAL_S)
    monitor.stop()
    lag = monitor.use.lag
    assert lag.max_ms is not None
    assert lag.max_ms >= 1e3 * (BLOCKED_S - INTERVAL_S)
    # Nearly all wake-ups of that time were late, and count.
    assert len(lag) >= BLOCKED_S / INTERVAL_S
    assert (lag.percentile_ms(99) or 0.0) >= 1e3 * (BLOCKED_S - 3 * INTERVAL_S)


def test_cpu_time_of_the_event_loop_is_measured() -> None:
    monitor = HubMonitor(window_s=0.1)
    monitor.start()
    gevent.sleep(0)
    began_s = time.thread_time()
    while time.thread_time() - began_s < 0.15:
        pass
    gevent.sleep(2 * INTERVAL_S)
    monitor.stop()
    assert monitor.use.cpu_shares
    assert 0 < max(monitor.use.cpu_shares) <= 1.05


def test_a_long_stop_counts_for_every_wake_up_that_it_delayed() -> None:
    use = HubUse()
    use.add_lag(0.001)
    use.add_lag(0.99)
    assert len(use.lag) == 1 + 50
    assert use.lag.max_ms == 990.0


def test_what_one_process_saw_reaches_another() -> None:
    use = HubUse(cpu_shares=[0.25])
    use.add_lag(0.01)
    sent = json.loads(json.dumps(use.pack()))
    received = HubUse.unpack(*sent)
    assert received.cpu_shares == [0.25]
    assert received.lag.pack() == use.lag.pack()

"""Keeping a server up: Triton and gateway are watched, and started again when they end or hang."""

from lychee_server.supervision.guard import Guard
from lychee_server.supervision.policy import MOST_RESTARTS
from lychee_server.supervision.requests import UpgradeRequest, ask_for_upgrade
from lychee_server.supervision.served import ServedRepository
from lychee_server.supervision.stopping import clean_up, stop_everything
from lychee_server.supervision.supervised import SupervisedServer, configure_log
from lychee_server.supervision.systemd import Notifier

__all__ = [
    "MOST_RESTARTS",
    "Guard",
    "Notifier",
    "ServedRepository",
    "SupervisedServer",
    "UpgradeRequest",
    "ask_for_upgrade",
    "clean_up",
    "configure_log",
    "stop_everything",
]

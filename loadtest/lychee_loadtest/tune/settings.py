"""What is tuned of a model, and its configuration with those keys changed and no others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import model_config_pb2

__all__ = ["Settings", "current_settings", "with_settings", "without_batching"]

BOUND = "max_run_elements"
THREADS = "intra_op_thread_count"


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides a model's speed on given hardware.

    `max_batch_size` is none of it: an ensemble may not exceed that of its models, and clients size their requests by
    the manifest.

    Attributes:
        batches: The batch sizes that Triton makes where it can (`preferred_batch_size`), ascending; empty: any batch.
        max_run_elements: The most elements of an input that run at once, which also cuts requests of more rows; 0: any.
        instances: How many copies of the model there are, each in its own process.
        threads: How many threads each instance has; 0: all cores.
        delay_us: How long Triton waits for a batch to fill.
    """

    batches: tuple[int, ...] = ()
    max_run_elements: int = 0
    instances: int = 1
    threads: int = 0
    delay_us: int = 0

    def describe(self) -> str:
        """Return the settings in words."""
        preferred = " and ".join(map(str, self.batches))
        batch = f"batches of {preferred}" if self.batches else "any batch"
        threads = "all cores" if not self.threads else f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        instances = f"{self.instances} instance{'s' if self.instances > 1 else ''}"
        bound = f", at most {self.max_run_elements} elements at once" if self.max_run_elements else ""
        return f"{batch}{bound}, {instances} with {threads}, queue delay {self.delay_us / 1000:g} ms"


def current_settings(config: Any) -> Settings:
    """Read the settings of a configuration, a ModelConfig message."""
    return Settings(
        batches=tuple(sorted(config.dynamic_batching.preferred_batch_size)),
        max_run_elements=_number(config, BOUND),
        instances=max(1, sum(max(1, group.count) for group in config.instance_group)),
        threads=_number(config, THREADS),
        delay_us=config.dynamic_batching.max_queue_delay_microseconds,
    )


def with_settings(config: Any, settings: Settings) -> Any:
    """Return a copy of a ModelConfig message with the settings in it, and nothing else changed."""
    changed = model_config_pb2.ModelConfig()
    changed.CopyFrom(config)
    batching = changed.dynamic_batching
    batching.SetInParent()
    del batching.preferred_batch_size[:]
    batching.preferred_batch_size.extend(settings.batches)
    batching.max_queue_delay_microseconds = settings.delay_us
    if not changed.instance_group:
        changed.instance_group.add(kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    if settings != current_settings(config):
        del changed.instance_group[1:]
        changed.instance_group[0].count = settings.instances
    _set_number(changed, BOUND, settings.max_run_elements)
    _set_number(changed, THREADS, settings.threads)
    return changed


def without_batching(config: Any) -> Any:
    """Return a copy whose requests run as they come, each as one batch."""
    changed = model_config_pb2.ModelConfig()
    changed.CopyFrom(config)
    changed.ClearField("dynamic_batching")
    _set_number(changed, BOUND, 0)
    return changed


def _number(config: Any, key: str) -> int:
    text = config.parameters[key].string_value if key in config.parameters else ""
    return int(text) if text.isascii() and text.isdigit() else 0


def _set_number(config: Any, key: str, value: int) -> None:
    if value:
        config.parameters[key].string_value = str(value)
    elif key in config.parameters:
        del config.parameters[key]

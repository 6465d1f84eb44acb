"""Checkpoints of every family, and their exports."""

from checkpoints.fixtures import checkpoint_folder, exported, one_thread

__all__ = ["checkpoint_folder", "exported", "one_thread"]

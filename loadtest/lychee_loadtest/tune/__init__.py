"""Batch sizes, instances and threads, found by measuring."""

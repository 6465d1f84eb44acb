"""Experiments on real users: who gets which variant, and the records that `lychee ab-report` reads."""

from lychee_client.experiments.assignment import Assignment

__all__ = ["Assignment"]

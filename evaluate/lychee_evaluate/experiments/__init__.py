"""Trying two thresholds on real users: who sees which, what they did, and whether it made a difference."""

from lychee_evaluate.experiments.ab_test import Comparison, compare
from lychee_evaluate.experiments.experiment import ExperimentLog, ThresholdExperiment
from lychee_evaluate.experiments.users import read_users

__all__ = ["Comparison", "ExperimentLog", "ThresholdExperiment", "compare", "read_users"]

"""Whether scores are right: thresholds from labelled pairs, trials on real users, and the wording of instructions."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("lychee-rerank-evaluate")

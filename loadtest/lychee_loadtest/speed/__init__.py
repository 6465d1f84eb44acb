"""Benchmarks of one machine: `python -m lychee_loadtest.speed.bench` and its neighbours."""

"""Load tests with Locust: callers, what they ask, how the load changes, and the limits that a run has to keep."""

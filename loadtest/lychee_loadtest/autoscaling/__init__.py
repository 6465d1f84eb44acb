"""`lychee autoscale-sim`: which target of the autoscaler keeps the latency, and what it costs, by simulating a day."""

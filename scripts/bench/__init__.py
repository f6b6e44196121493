"""The benchmark: the gateway and what else could stand in its place, in one run."""

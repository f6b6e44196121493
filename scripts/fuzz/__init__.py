"""Random and damaged inputs for everything that reads what a peer or an operator wrote: ``python -m scripts.fuzz``."""

"""What the core costs, in instructions and not in seconds: ``python -m scripts.instructions``; and how fast the hook
``sanitize`` is: ``python -m scripts.instructions.throughput``."""

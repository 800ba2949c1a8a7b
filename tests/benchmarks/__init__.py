"""What the server costs beside its yardsticks, as ratios within one run.

``python -m tests.benchmarks`` runs all, ``python -m tests.benchmarks streams`` one. Each starts a server of
its own on loopback, with production settings and the embedded default. The server has one core to itself; the
client that asks, and the fake provider, share another. Sides that are compared take turns, so that whatever
else the machine does disturbs them alike; figures are medians of the rounds.
"""

"""Benchmarks: how fast we are, beside what one would use instead, in one run.

Here live scenarios (what is measured), peers (who does it), and the machinery that starts a fresh process for each
role, pins it, repeats everything in turns between the peers and reports medians. The room promises that every answer
is checked, that both sides are processes of their own, and that ratios compare figures of the same run. What the
figures should be stands in `bench.bars` and nowhere else here; nothing is tuned to it.

It is installed as ``l4re_bench``, which ``l4re bench`` loads; nothing in ``l4re`` needs it. A further scenario or peer
is one module in `bench.scenarios` or `bench.peers`, and one line in its ``__init__``.
"""

"""Death at each step: a process stops at one marked point of the protocol and is killed there with -9.

The survivor runs on the leaf as it is, the victim on the one of ``make debug``.
"""

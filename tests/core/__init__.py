"""Acceptance of the core: ports, sessions, IRQs, the loop. Every death is real, no test goes by timing."""

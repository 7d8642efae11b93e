"""The C leaf: session pages and their atomics, descriptor passing, mappings, starting programs.

``leaf`` is one C11 extension against the stable ABI; ``leaf.pyi`` is its contract.
It promises to crash on no input and to block only where its stub says so, with
the GIL dropped. Names, rights and policy are Python's.
"""

__all__ = ["leaf"]

from l4re._native import leaf

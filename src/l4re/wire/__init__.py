"""What messages look like: tags, words, items, and values marshalled by L4Re's rules.

Flexpages, mappings, timeouts and protocol numbers are L4's words for what Linux does otherwise; they are values to
read and to write, and nothing here depends on them.

Everything here is a function on values; there is no I/O and no state that outlives a call. The room
promises that any bytes at all decode to a value or to an `L4Error`, and that what one side packs the other
side unpacks. Which values a method takes is left to ``interface``, how a message travels to ``gate``.
"""

__all__: list[str] = []

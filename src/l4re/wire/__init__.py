"""What messages look like: tags, items, and values marshalled by L4Re's rules.

Everything here is a function on values; there is no I/O and no state that outlives a call. The room
promises that any bytes at all decode to a value or to an `L4Error`, and that what one side packs the other
side unpacks. Which values a method takes is left to ``interface``, how a message travels to ``gate``.
"""

__all__: list[str] = []

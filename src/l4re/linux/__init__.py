"""The only door to the kernel.

One wrapper is one idea of the kernel, typed, and what it returns has an owner
(:class:`~l4re.linux.fd.Fd`). Nothing here knows a capability or a right: the
rooms above say what a descriptor means. The C leaf is the other half of this
door and is reached through it.
"""

__all__: list[str] = []

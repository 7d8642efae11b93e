"""What programs say: tags, colours, whole lines, and the multiplexer that prints many programs as one.

The room promises that a line comes out whole, once, under the tag of the program that wrote it and in the order
it was written, and that no output of a program that ended is lost. Who gets which tag is left to ``boot`` and
``ned``.
"""

from l4re.log.client import Log
from l4re.log.console import Console
from l4re.log.lines import LineAssembler
from l4re.log.multiplexer import Multiplexer, shared_multiplexer
from l4re.log.tag import Tag, colour_number

__all__ = ["Console", "LineAssembler", "Log", "Multiplexer", "Tag", "colour_number", "shared_multiplexer"]

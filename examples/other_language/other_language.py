"""Hand a program in C a dataspace and an IRQ by name, and wait until it has read the one and triggered the other.

Run it as ``python other_language.py READER``, where READER is what a C compiler made of ``reader.c``.
"""

import sys

import l4re


def main(reader: str) -> None:
    """Share a text with the program ``reader``."""
    env = l4re.env()
    with env.mem_alloc.alloc(4096) as text, env.factory.create_irq() as read:
        text.write(0, b"Hello from Python!")
        with l4re.spawn([reader], caps={"text": text.ro, "read": read}) as task:
            read.receive(timeout=10)
            print("Python heard that it was read")
            print(f"it ended with {task.wait(timeout=10)}")


main(sys.argv[1])

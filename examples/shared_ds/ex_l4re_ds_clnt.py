"""The client: asks for the memory, shows what is in it, writes something else and tells the server.

    ex_l4re_ds_clnt [SECONDS]

It pauses a second before it writes, for the effect; SECONDS or the variable DEMO_PAUSE say how long, 0 is not at all.
"""

import os
import sys
import time

import l4re
from interface import SharedMemory


def pause() -> float:
    """Return how long to wait, at most a second."""
    word = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("DEMO_PAUSE", "1")
    return max(0.0, min(1.0, float(word)))


def main() -> int:
    """Use the server's memory once."""
    env = l4re.env()
    try:
        shm = env.get_cap("shm", SharedMemory)
    except l4re.NotFound as error:
        print(f"Could not get the server capability: {error}", file=sys.stderr)
        return 1
    try:
        ds, irq = shm.get_shared_buffer()
    except l4re.L4Error as error:
        print(f"Could not get shared memory dataspace: {error}", file=sys.stderr)
        return 1
    try:
        region = env.rm.attach(ds)
    except l4re.L4Error as error:
        print(f"Error attaching data space: {error}", file=sys.stderr)
        return 1

    text = bytes(region).split(b"\0", 1)[0]
    print(f"Content: {text.decode(errors='replace')}")
    time.sleep(pause())

    print("Setting new content in shared memory")
    answer = b"Hello from client, too!\0"
    memoryview(region)[: len(answer)] = answer
    irq.trigger()
    env.rm.detach(region)
    return 0


if __name__ == "__main__":
    sys.exit(main())

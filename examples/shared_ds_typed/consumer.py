"""The client, typed: `env.get_cap` returns a proxy whose methods are the interface's."""

import os
import time

from shared_memory import SharedMemory

import l4re


def main() -> None:
    """Use the server's memory once. DEMO_PAUSE=0 leaves out the pause before the change."""
    env = l4re.env()
    ds, irq = env.get_cap("shm", SharedMemory).get_shared_buffer()
    with env.rm.attach(ds) as region:
        text = bytes(region).split(b"\0", 1)[0]
        print(f"Content: {text.decode(errors='replace')}")
        time.sleep(max(0.0, min(1.0, float(os.environ.get("DEMO_PAUSE", "1")))))
        print("Setting new content in shared memory")
        answer = b"Hello from client, too!\0"
        memoryview(region)[: len(answer)] = answer
        irq.trigger()


if __name__ == "__main__":
    main()

"""Allocates memory, attaches it, writes to every page of it, and gives it back."""

import sys

import l4re

SIZE = 16 * 4096


def main() -> int:
    """Do it once."""
    env = l4re.env()
    try:
        ds = env.mem_alloc.alloc(SIZE)
        region = env.rm.attach(ds)
    except l4re.L4Error as error:
        print(f"Allocation failed: {error}", file=sys.stderr)
        return 1
    print("Allocated memory.")

    with memoryview(region) as memory:
        memory[:] = b"\x12" * SIZE
    print("Touched memory.")

    try:
        env.rm.detach(region)
        ds.close()
    except l4re.L4Error as error:
        print(f"Freeing failed: {error}", file=sys.stderr)
        return 2
    print("Freed and done. Bye.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

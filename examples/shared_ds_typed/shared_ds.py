"""The system, started from Python: two programs, and one channel between them.

python shared_ds.py
"""

import sys
from pathlib import Path

import l4re

HERE = Path(__file__).parent


def main() -> int:
    """Start both and wait for them."""
    channel = l4re.new_channel()
    with (
        l4re.spawn([HERE / "provider.py"], caps={"shm": channel.svr}, log=("server", "yellow")) as server,
        l4re.spawn([HERE / "consumer.py"], caps={"shm": channel.gate}, log=("client", "green")) as client,
    ):
        channel.gate.close()  # the server ends once nobody can reach it; that includes us
        return client.wait() or server.wait()


if __name__ == "__main__":
    sys.exit(main())

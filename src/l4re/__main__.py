"""``python -m l4re`` is the command ``l4re``."""

import sys

from l4re.cli import main

if __name__ == "__main__":
    sys.exit(main())

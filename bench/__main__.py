"""``python -m bench``: the same as ``l4re bench``."""

import sys

from l4re.cli import main

sys.exit(main(["bench", *sys.argv[1:]]))

"""The command ``l4re``: one module per sub-command.

The room promises that a command does nothing the library cannot, that data goes to standard output and talk to
standard error, and that the exit status tells: 0 done, 1 refused, 2 misused. What a command does is left to the
rooms below, which are imported only when it runs.
"""

from l4re.cli.main import main

__all__ = ["main"]

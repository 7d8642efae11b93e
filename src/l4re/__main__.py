"""``python -m l4re`` is the command ``l4re``."""

from l4re.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    raise SystemExit(main())

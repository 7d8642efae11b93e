"""Fuzzing: every decoder, fed any bytes at all. ``make fuzz`` runs it, guided by coverage if `atheris` is installed."""

"""The examples print what they promise, and leave nothing behind."""

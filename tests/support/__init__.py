"""What several test rooms share: processes, raw peers."""

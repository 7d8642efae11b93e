"""Prints, as any program does: where that goes is its parent's business."""

print("Hello World!")
print("I do not know who reads this.")

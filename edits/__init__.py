"""What to change in a clip, and how the change lands in its frames."""

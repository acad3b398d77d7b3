"""Sky mattes: how much of each pixel is sky."""

"""Bundled skies (pictures of this project's own making) and the code that paints them."""

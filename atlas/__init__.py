"""The core: coordinates, the clip folder, layer mappings, fields, losses, fitting, rendering."""

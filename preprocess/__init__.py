"""Raw video to a clip folder: frames, flow, masks; and the training-free fast path."""

"""Where checkpoints come from: a folder, the hub or the bundled one; reading its files and weights."""

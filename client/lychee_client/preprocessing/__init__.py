"""From texts and images to the tensors that a model reads, as the manifest says; no input or output but image files."""

"""What an export promises: the tensors of each model, and the limits of what it reads. Imports nothing else of ours."""

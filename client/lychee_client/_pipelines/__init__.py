"""How a call of `rerank` asks the server: one module for each kind of model, without input or output of its own."""

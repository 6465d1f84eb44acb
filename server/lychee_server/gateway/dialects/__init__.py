"""What other rerankers' clients send, as the gateway's own request, and its answer as they read it."""

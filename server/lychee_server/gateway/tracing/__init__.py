"""Spans of requests, exported with OpenTelemetry: a part of the extra `lychee-rerank-server[otel]`.

Only `export` imports OpenTelemetry, and only where the standard variables ask for it.
"""

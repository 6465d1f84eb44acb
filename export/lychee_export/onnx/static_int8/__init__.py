"""Static int8: what has constant weights computes with 8-bit numbers, at scales that are measured once."""

from lychee_export.onnx.static_int8.quantizer import StaticReport, quantize_static, write_static_int8

__all__ = ["StaticReport", "quantize_static", "write_static_int8"]

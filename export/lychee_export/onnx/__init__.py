"""From a torch module to ONNX files in a precision, and from those to TensorRT's."""

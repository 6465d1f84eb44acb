"""A PyTriton binding of the torch model, with Triton's dynamic batching. Runs on its own.

    python pytriton_server.py CHECKPOINT HTTP_PORT GRPC_PORT METRICS_PORT

Two models, `text` (a string) and `image` (the bytes of a JPEG file), give embeddings of unit length. Preprocessing is
part of them, as in PyTriton's own examples.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import numpy as np
import torch
from PIL import Image
from pytriton.decorators import batch  # type: ignore[import-untyped]
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor  # type: ignore[import-untyped]
from pytriton.triton import Triton, TritonConfig  # type: ignore[import-untyped]
from torch.nn import functional
from transformers import CLIPModel, CLIPProcessor

MAX_BATCH_SIZE = 64


class Encoders:
    """The two inference functions.

    Args:
        checkpoint: The folder of a CLIP model.
    """

    def __init__(self, checkpoint: str) -> None:
        self._model = CLIPModel.from_pretrained(checkpoint, attn_implementation="sdpa")
        self._processor = CLIPProcessor.from_pretrained(checkpoint)
        self.dim = int(self._model.visual_projection.out_features)

    def encode_texts(self, text: Any) -> dict[str, Any]:
        """Embed texts: bytes, (batch_size, 1)."""
        texts = [item.decode("utf-8") for item in text[:, 0]]
        inputs = self._processor(text=texts, return_tensors="pt", padding=True, truncation=True)
        with torch.inference_mode():
            features = self._model.get_text_features(**inputs).pooler_output
            return {"embedding": functional.normalize(features).numpy()}

    def encode_images(self, image: Any) -> dict[str, Any]:
        """Embed JPEG files: bytes, (batch_size, 1)."""
        images = [Image.open(io.BytesIO(item)).convert("RGB") for item in image[:, 0]]
        inputs = self._processor(images=images, return_tensors="pt")
        with torch.inference_mode():
            features = self._model.get_image_features(**inputs).pooler_output
            return {"embedding": functional.normalize(features).numpy()}


def main(checkpoint: str, http_port: int, grpc_port: int, metrics_port: int) -> None:
    """Serve until the process is stopped."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    encoders = Encoders(checkpoint)
    config = TritonConfig(http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port, log_verbose=0)
    with Triton(config=config) as triton:
        for name, infer in (("text", encoders.encode_texts), ("image", encoders.encode_images)):
            triton.bind(
                model_name=name,
                infer_func=batch(infer),
                inputs=[Tensor(name=name, dtype=bytes, shape=(1,))],
                outputs=[Tensor(name="embedding", dtype=np.float32, shape=(encoders.dim,))],
                config=ModelConfig(max_batch_size=MAX_BATCH_SIZE, batcher=DynamicBatcher()),
                strict=False,
            )
        triton.serve()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))

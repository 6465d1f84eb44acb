"""The service that a good engineer writes in an afternoon: FastAPI over torch and transformers. Runs on its own.

    python fastapi_server.py CHECKPOINT PORT PRECISION

`POST /rerank` takes {"query": text, "documents": [{"text": ...} or {"image": base64 of a JPEG file}]} and gives
{"scores": [cosine of query and document]}. All texts of a request (the query too) go through the model in one batch,
and all images in another. PRECISION is "fp32", or "bf16" for CPUs that have instructions for bfloat16.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import threading

import torch
import uvicorn
from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel
from torch.nn import functional
from transformers import CLIPModel, CLIPProcessor


class Document(BaseModel):
    """A text or an image."""

    text: str | None = None
    image: str | None = None


class Request(BaseModel):
    """One ranking."""

    query: str
    documents: list[Document]


class Answer(BaseModel):
    """The documents' scores, in their order."""

    scores: list[float]


# bfloat16 weights, not `torch.autocast`, which converts them again in every pass: per second 30.7 photos, 101 texts in
# batches of 100 and 97 in batches of 5; autocast 28.8, 99 and 92; float32 16.3, 49 and 49. In process, medians of 5
# rounds in turn, 2 cores of an AMD EPYC (Zen 4, AVX512-BF16) that other work shared, 2026-11-27; torch_precisions.py.
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build_app(checkpoint: str, precision: str) -> FastAPI:
    """Load the model and return the service."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = CLIPModel.from_pretrained(checkpoint, attn_implementation="sdpa", dtype=PRECISIONS[precision])
    processor = CLIPProcessor.from_pretrained(checkpoint)
    one_at_a_time = threading.Lock()  # the threads of several forward passes would fight for the same cores
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/rerank")
    def rerank(request: Request) -> Answer:
        texts = [request.query, *(document.text for document in request.documents if document.text is not None)]
        files = [base64.b64decode(document.image) for document in request.documents if document.image is not None]
        inputs = processor(text=texts, return_tensors="pt", padding=True, truncation=True)
        if files:
            images = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
            inputs |= processor(images=images, return_tensors="pt")
        with torch.inference_mode(), one_at_a_time:
            features = model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
            query, documents = features[:1], features[1:]
            if files:
                pictures = model.get_image_features(inputs["pixel_values"].to(model.dtype)).pooler_output
                documents = torch.cat([documents, pictures])
            scores = functional.cosine_similarity(query.float(), documents.float())
        texts_first = scores.tolist()
        order = sorted(range(len(request.documents)), key=lambda index: request.documents[index].text is None)
        ranked = dict(zip(order, texts_first, strict=True))
        return Answer(scores=[ranked[index] for index in range(len(request.documents))])

    return app


if __name__ == "__main__":
    uvicorn.run(build_app(sys.argv[1], sys.argv[3]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")

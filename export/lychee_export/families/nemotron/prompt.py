"""The prompt of the Llama Nemotron rerankers, ``prompt_template`` "v1".

Source: the model cards; processing_llama_nemotron_vl.py of nvidia/llama-nemotron-rerank-vl-1b-v2, in a public copy.
"""

from __future__ import annotations

__all__ = ["IMAGE", "IMAGE_TOKEN", "LOGITS_NOTE", "TEMPLATE", "fill"]

TEMPLATE = "question:{query} \n \n passage:{document}"
"""Its middle is one token of Llama 3's tokenizer, " \\n \\n"."""
IMAGE_TOKEN = "<IMG_CONTEXT>"
IMAGE = f"<img>{IMAGE_TOKEN}</img> "
"""What stands before the template for a document's image, with the token repeated."""
LOGITS_NOTE = (
    "the checkpoint's own scores are logits without an activation: here they are the field logits, and relevance_score "
    "is their sigmoid, in the same order"
)


def fill(query: str, document: str) -> str:
    """Put a query and the text of a document into the template."""
    before, middle = TEMPLATE.removesuffix("{document}").split("{query}")
    return before + query + middle + document

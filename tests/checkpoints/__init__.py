"""Tiny random checkpoints of the real transformers classes, written to disk as users have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from checkpoints.blip import build_blip
from checkpoints.clip import build_chinese_clip, build_clip
from checkpoints.colbert import (
    build_answerai_colbert,
    build_colbert,
    build_jina_colbert,
    build_lateon,
    build_modern_colbert,
    build_pylate_colbert,
)
from checkpoints.colqwen import build_colqwen2, build_colqwen2_5
from checkpoints.nemotron import build_nemotron_reranker, build_nemotron_vl_reranker
from checkpoints.paligemma import build_colpali
from checkpoints.qwen3_reranker import (
    build_qwen3_classifier,
    build_qwen3_reranker,
    build_qwen3_reranker_shards,
)
from checkpoints.qwen_vl import build_jina_m0, build_monoqwen, build_qwen2_5_vl, build_qwen3_vl
from checkpoints.siglip import build_siglip, build_siglip2, build_siglip2_naflex
from checkpoints.text_cross_encoder import (
    build_bert_reranker,
    build_deberta_reranker,
    build_gte_multilingual_reranker,
    build_jina_v2_reranker,
    build_modernbert_reranker,
    build_roberta_reranker,
    build_xlm_roberta_reranker,
)

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "answerai_colbert": build_answerai_colbert,
    "bert_reranker": build_bert_reranker,
    "blip": build_blip,
    "chinese_clip": build_chinese_clip,
    "clip": build_clip,
    "colbert": build_colbert,
    "colpali": build_colpali,
    "colqwen2": build_colqwen2,
    "colqwen2_5": build_colqwen2_5,
    "deberta_reranker": build_deberta_reranker,
    "gte_multilingual_reranker": build_gte_multilingual_reranker,
    "jina_colbert": build_jina_colbert,
    "jina_m0": build_jina_m0,
    "jina_v2_reranker": build_jina_v2_reranker,
    "lateon": build_lateon,
    "modern_colbert": build_modern_colbert,
    "modernbert_reranker": build_modernbert_reranker,
    "monoqwen": build_monoqwen,
    "nemotron_reranker": build_nemotron_reranker,
    "nemotron_vl_reranker": build_nemotron_vl_reranker,
    "pylate_colbert": build_pylate_colbert,
    "qwen2_5_vl": build_qwen2_5_vl,
    "qwen3_reranker": build_qwen3_reranker,
    "qwen3_reranker_seq_cls": build_qwen3_classifier,
    "qwen3_reranker_shards": build_qwen3_reranker_shards,
    "qwen3_vl": build_qwen3_vl,
    "roberta_reranker": build_roberta_reranker,
    "siglip": build_siglip,
    "siglip2": build_siglip2,
    "siglip2_naflex": build_siglip2_naflex,
    "xlm_roberta_reranker": build_xlm_roberta_reranker,
}
"""By name: writes the checkpoint into a folder and returns it."""

"""A BERT tokenizer as vocab.txt, with Chinese characters and English words and letters."""

from __future__ import annotations

import json
import string
from pathlib import Path

_CHINESE = "一只猫怎么退款流程在订单页面点击申请火箭从发射台升空小喜欢晒太阳"
_WORDS = ("the", "cat", "sleeps", "on", "sofa", "a", "cup", "of", "coffee", "hot", "drink", "yellow", "flower", "##s")


def write_bert_tokenizer(folder: Path, model_max_length: int = 512) -> int:
    """Write vocab.txt and tokenizer_config.json; return the number of tokens."""
    letters = string.ascii_lowercase + string.digits
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation, *sorted(set(_CHINESE)), *letters]
    pieces += [f"##{letter}" for letter in letters]
    pieces += [word for word in _WORDS if word not in pieces]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": model_max_length}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(pieces)

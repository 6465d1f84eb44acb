"""Which column is which, by the names that people give them, in English and Chinese."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

# The first name of each row is the column's own; where a table has several names of a row, the first one counts.
NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "query": (
        *("query", "query_text", "search_query", "question", "search_term", "keyword", "keywords", "q"),
        *("查询", "查询词", "查询文本", "查询语句", "搜索词", "检索词", "关键词", "问题", "提问"),
        *("查詢", "查詢詞", "搜尋詞", "關鍵詞", "問題"),
    ),
    "query_image": (
        *("query_image", "query_image_path", "query_picture"),
        *("查询图片", "查询图像", "问题图片", "查詢圖片"),
    ),
    "text": (
        *("text", "document", "doc", "document_text", "passage", "candidate", "content", "body", "answer"),
        *("description", "title"),
        *("文本", "文档", "文档文本", "段落", "候选", "候选文本", "内容", "正文", "答案", "描述", "标题"),
        *("文字", "文檔", "文件", "內容", "標題"),
    ),
    "image": (
        *("image", "image_path", "document_image", "picture", "photo", "img"),
        *("图片", "图像", "照片", "文档图片", "图片路径", "圖片", "圖像"),
    ),
    "relevant": (
        *("relevant", "is_relevant", "relevance", "label", "labels", "relevance_label", "relevance_judgment"),
        *("相关", "是否相关", "相关吗", "标签", "标注", "标注结果", "人工标注", "相关性"),
        *("相關", "是否相關", "標籤", "標註"),
    ),
    "relevance_score": (
        *("relevance_score", "score", "scores"),
        *("相关性分数", "相关性得分", "相关度", "分数", "得分", "评分", "分數", "相關度"),
    ),
    "instruction": ("instruction", "instruct", "task_instruction", "指令", "任务指令", "指示"),
    "documents": ("documents",),  # a list, in JSON lines alone
    "id": ("id", "number", "no", "no.", "row", "index", "编号", "序号", "行号", "編號", "序號"),
}
# The header is one of the first rows: people put titles above their tables.
HEADER_ROWS: Final = 10
_MEANINGS: Final = {name: meaning for meaning, names in NAMES.items() for name in names}


def normalize_name(name: str) -> str:
    """Return a column's name without what people write in different ways: case, width, hyphens, blanks."""
    plain = unicodedata.normalize("NFKC", name).strip(" \t\r\n\u00a0\u200b\ufeff:*'\"").casefold()
    return re.sub(r"[\s\-_]+", "_", plain)


def find_meaning(name: str) -> str | None:
    """Return what a column of this name holds, a key of NAMES, or None."""
    return _MEANINGS.get(normalize_name(name))


def count_meanings(cells: Sequence[object]) -> int:
    """Return how many different things the cells of a row would mean, if they were names."""
    return len({find_meaning(cell) for cell in cells if isinstance(cell, str)} - {None})


def match_columns(names: Sequence[str]) -> list[str | None]:
    """Return what each column holds; where several names mean the same, only the first in NAMES does.

    Equal names keep the same meaning: whoever reads the table refuses them.
    """
    normalized = [normalize_name(name) for name in names]
    present = set(normalized)
    chosen = {meaning: next((name for name in known if name in present), None) for meaning, known in NAMES.items()}
    return [
        meaning if (meaning := _MEANINGS.get(name)) is not None and chosen[meaning] == name else None
        for name in normalized
    ]

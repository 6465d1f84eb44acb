"""The linter: every reason in both languages, and silence on harmless instructions."""

import pytest
from lychee_client.instructions.lint import MAX_WORDS, lint_instruction
from lychee_client.instructions.templates import MAX_TEXT_CHARACTERS, bundled_instructions

HARMLESS = [
    "Given a web search query, retrieve relevant passages that answer the query",
    "Find documents that help a customer who has lost a parcel",
    "Judge whether the photo shows the same product as the query; ignore the background and the lighting",
    "Judge whether the item is the same except for its colour",
    "Judge whether the recipe is suitable for people who do not eat meat",
    "Judge whether the product costs between 100 and 200 yuan",
    "Find hotels that are rated with at least four stars",
    "Judge whether the hotel is more than 80 percent booked",
    "Judge whether the document explains how to rank websites and how to score an essay",
    "Given a claim, find documents that support or refute the claim",
    "Judge whether the two texts mean the same even if the wording is different",
    "Find the document that best answers the question",
    "Judge whether the document was written for beginners, not for experts",
    "Judge whether or not the document answers the question",
    "Find news about companies whose credit score is above 700",
    "Judge whether the article lists the side effects of the drug",
    "Retrieve documents that mention the company and explain its business",
    "Judge whether the picture shows only one person",
    "Judge whether the document is an official translation of the query",
    "Judge whether the answer is correct and complete",
    "Judge whether this résumé fits the job",
    "给定一个搜索词，检索能够回答它的段落",
    "判断图片中的商品与查询中的商品是否为同一款",
    "即使措辞不同，也判断两段文字的意思是否相同",
    "判断菜谱是否适合不吃肉的人",
    "判断商品价格是否在1到5元之间",
    "判断文档是否介绍了如何给电影打分",
    "判断文档是否说明了退货的原因",
    "判断文章是否列出了药物的副作用",
    "查找介绍故宫历史的文档",
    "判断文档不仅包含关键词，而且回答问题",
    "判断新闻是否报道了同一事件",
    "检索与图片内容相关的文字描述",
    "判断攻略是否包含交通信息，语言不限",
    "判断视频标题是否与画面内容有关",
    "判断景点是否适合一日游，路程在30到60分钟以内",
    "判断两件商品除了颜色以外是否相同",
    "判断文档是否介绍如何排除故障",
    "判断内容是否与语言无关",
    "判断候选商品能否与图中的商品搭配",
    "判断回答是否解决了用户的问题，注意型号要对应",
]
CHANGING = [
    ("exact-only", "Retrieve only perfect matches"),
    ("exact-only", "Only accept documents that are exactly the same"),
    ("exact-only", "Find exact matches for the query"),
    ("exact-only", "The document must match the query exactly"),
    ("exact-only", "The document must be identical to the query"),
    ("exact-only", "Keep what matches 100%"),
    ("exact-only", "只检索完美匹配的文档"),
    ("exact-only", "仅返回一模一样的商品"),
    ("exact-only", "文档必须与查询完全匹配"),
    ("exact-only", "只返回完全匹配的结果"),
    ("negation", "Find documents that do NOT answer the question"),
    ("negation", "Retrieve documents that aren't relevant to the query"),
    ("negation", "Judge whether the document is irrelevant"),
    ("negation", "Retrieve news, excluding those about sports"),
    ("negation", "Find news. Don’t return adverts"),
    ("negation", "Retrieve everything except invoices"),
    ("negation", "检索没有提到价格的文档"),
    ("negation", "判断文档是否不相关"),
    ("negation", "检索与查询无关的文档"),
    ("negation", "判断文档是否与问题无关"),
    ("negation", "检索新闻，排除广告"),
    ("number", "Rate the relevance of the document from 1 to 10"),
    ("number", "Give a score between 0 and 1"),
    ("number", "Judge the relevance on a scale from 1 to 5"),
    ("number", "请给文档的相关性打分"),
    ("number", "输出相关概率"),
    ("number", "用1到10分表示相关程度"),
    ("ranking", "Rank the documents by relevance"),
    ("ranking", "Find and rank documents"),
    ("ranking", "Return the top 10 documents"),
    ("ranking", "Select the best document"),
    ("ranking", "按相关性对文档排序"),
    ("ranking", "返回最相关的三篇文档"),
    ("ranking", "找出前10个结果"),
    ("free-text", "List all documents about cats"),
    ("free-text", "Answer the question"),
    ("free-text", "Judge whether the document answers the question and explain why"),
    ("free-text", "Provide a short explanation"),
    ("free-text", "判断文档是否相关，并说明理由"),
    ("free-text", "列出所有相关文档"),
    ("threshold", "Retrieve documents with a score above 0.8"),
    ("threshold", "Use a threshold of 0.75"),
    ("threshold", "Find documents that are at least 80% similar"),
    ("threshold", "Relevance >= 0.5"),
    ("threshold", "检索相似度高于0.8的文档"),
    ("threshold", "阈值为0.75"),
    ("threshold", "有80%以上把握才回答是"),
    ("several-tasks", "Judge whether the document answers the question and whether it is polite"),
    ("several-tasks", "Judge whether the document is relevant. Then check if it is spam"),
    ("several-tasks", "判断文档是否回答问题以及是否有礼貌"),
    ("several-tasks", "判断文档是否相关，并判断语气是否友好"),
    ("several-tasks", "1. Find documents about cats 2. Check the date"),
]


@pytest.mark.parametrize(
    "text", [*HARMLESS, *(text for template in bundled_instructions().values() for text in template.texts.values())]
)
def test_harmless_instruction_gives_no_warning(text: str) -> None:
    assert lint_instruction(text) == ()


@pytest.mark.parametrize(("code", "text"), CHANGING)
def test_instruction_that_changes_the_score_is_named(code: str, text: str) -> None:
    (warning,) = lint_instruction(text)
    assert warning.code == code
    assert warning.excerpt
    assert warning.excerpt in text


def test_every_reason_that_applies_is_named_once() -> None:
    warnings = lint_instruction("Only perfect matches, only exact matches; rank them, and give a score above 0.8")
    assert [warning.code for warning in warnings] == ["exact-only", "number", "ranking", "threshold"]
    assert all("; " in warning.message or ". " in warning.message for warning in warnings)  # why, and what instead


@pytest.mark.parametrize("word", ["fit ", "适合"])
def test_long_instruction_is_named(word: str) -> None:
    assert lint_instruction(word * MAX_WORDS) == ()
    (warning,) = lint_instruction(word * (MAX_WORDS + 1))
    assert (warning.code, warning.excerpt) == ("too-long", f"{MAX_WORDS + 1} words")


@pytest.mark.parametrize("text", ["", "x" * (MAX_TEXT_CHARACTERS + 1), "a<|im_end|>", "a\nb"])
def test_unusable_text_is_named(text: str) -> None:
    (warning,) = lint_instruction(text)
    assert warning.code == "unusable"
    assert len(warning.excerpt) <= 40

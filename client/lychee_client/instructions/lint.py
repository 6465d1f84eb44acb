"""Find instructions that change what a score means.

A reranker reads one query and one document and answers yes or no; the score is how sure it is of "yes". An instruction
that asks for anything else still gives scores, but not those that thresholds were made for.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final

from lychee_client.instructions.templates import text_problem

MAX_WORDS: Final = 60


@dataclass(frozen=True, slots=True)
class LintWarning:
    """One reason why an instruction's scores may not mean what its author thinks.

    Attributes:
        code: A short name of the reason, for example "exact-only".
        message: Why it matters and what to write instead.
        excerpt: The words that gave rise to it.
    """

    code: str
    message: str
    excerpt: str

    def __str__(self) -> str:
        """Return what a response warns of."""
        return f"the instruction changes what a score means ({self.excerpt!r}): {self.message}"


# At the start of a clause a verb is an order to the model; further on it belongs to what the document is about.
_START: Final = r"(?:^|[.;:!?,]\s*|\b(?:please|then)\s+)"
_START_ZH: Final = r"(?:^|[，。；：！？,.;:!?]\s*|请|然后|并)(?:再|请)?"
# The rest of a clause up to a verb, unless "whether" (是否) makes that verb a part of the question.
_UP_TO_ZH: Final = r"[^，。；：！？,.;:!?是否]{0,10}?"
_QUANTITY: Final = r"(?:scores?|ratings?|similarity|relevance|confidence|probability|certainty)"
_QUANTITY_ZH: Final = r"(?:分数|得分|评分|相似度|置信度|相关度|相关性|匹配度|概率)"
# A share such as 0.8, 80 or 80 %, but no credit score of 700.
_SHARE: Final = r"(?:0?\.\d+|1(?:\.0+)?|\d{1,2}(?:\.\d+)?|100)\s*(?:%|％|percent\b)?(?![\d.]*\d)"

# Code, message, and patterns, the English ones first.
_TABLE: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    (
        "exact-only",
        "asking for perfect or exact matches only drives most scores to zero, so that a threshold leaves next to "
        "nothing; say what a match is, and be strict in the threshold (policy 'strict')",
        (
            r"\b(?:perfect(?:ly)?|exact(?:ly)?|flawless(?:ly)?|identical|100\s*%|ideal)\s+(?:match|fit)\w*",
            r"\b(?:match|fit)(?:es|s|ing)?\s+(?:\w+\s+){0,3}?(?:perfectly|exactly|100\s*%|in every (?:way|detail))",
            r"\b(?:only|exclusively|solely|nothing but)\b[^.;]{0,40}\b(?:perfect|exact|flawless|identical|100\s*%)",
            r"\bmust\s+be\s+(?:perfect|exact|identical|flawless)\b",
            r"(?:完全|完美|精确|精准|严格|百分之百|100\s*%)地?(?:匹配|吻合|符合|一致|对应|相符)",
            r"(?:只|仅)(?:要|能|保留|检索|返回|接受|选择|查找|匹配|允许)?[^，。；]{0,10}(?:完美|完全|精确|一模一样|分毫不差)",
        ),
    ),
    (
        "negation",
        "a negated question turns the score around or blurs it, for models judge what is there better than what is "
        "not; ask the positive question and use the documents with low scores",
        (
            r"\b(?:do|does|did|is|are|was|were|has|have|should|must|can|could|would|will)(?:\s+not|n['’]t)\s+"
            r"(?:\w+\s+){0,2}?(?:answer|address|belong|concern|contain|cover|depict|describe|discuss|fit|help|include"
            r"|match|meet|mention|relate|satisfy|show|support|relevant|related|similar|about)\w*",
            r"\b(?:irrelevant|unrelated|dissimilar|off-topic|non-?relevant|not\s+(?:relevant|related|similar))\b",
            _START + r"(?:exclud(?:e|ing)|reject|discard|filter out|leave out|avoid)\b",
            _START + r"(?:do not|don['’]t|never)\s+(?:return|retrieve|include|accept|match|show|select|keep|find)\b",
            r"\b(?:anything|everything|all\s+\w+)\s+(?:but|except|other than)\b",
            r"(?:不|没有|没|未|未能|并非)(?:会|能|曾|直接|太|够)?(?:相关|有关|匹配|符合|包含|包括|回答|提到|提及|涉及|满足|属于|相似)",
            r"无关的|是否与?(?:查询|问题|搜索词|主题|用户)[^，。；]{0,6}无关",
            _START_ZH + r"(?:排除|剔除|过滤掉|去掉|(?:不要|不得|别)(?:返回|检索|包含|选择|接受|匹配|保留))",
        ),
    ),
    (
        "number",
        "the model answers yes or no and the score is how sure it is of yes; it never writes a number. Ask whether "
        "the document fits, and read relevance_score",
        (
            _START + r"(?:rate|score|grade)\b",
            r"\b(?:give|return|output|provide|assign|write|predict|estimate|state)\s+(?:\w+\s+){0,4}?"
            r"(?:scores?|ratings?|numbers?|grades?|points|percentages?|probabilit(?:y|ies)|confidence)\b",
            r"\bon a scale\b|\b(?:score|rating|number|points)\s+(?:from|between|of|out of)\s+\d",
            _START_ZH + _UP_TO_ZH + r"(?:打分|评分|打个分)",
            r"(?:给出|输出|返回|写出|预测)[^，。；是否]{0,8}(?:分数|得分|评分|数字|百分比|概率|置信度)",
            r"\d\s*(?:到|至|-|—|~|～)\s*\d+\s*分(?!钟)",
        ),
    ),
    (
        "ranking",
        "the model sees one document at a time, so it can neither rank nor choose among several; ask whether the "
        "document fits, and use top_n",
        (
            _START + r"(?:re-?rank|rank|sort|order)\b|\b(?:and|then)\s+(?:re-?rank|rank|sort)\b",
            r"\b(?:return|retrieve|give|show|list|find|select|choose|pick|keep)\s+(?:me\s+)?(?:only\s+)?the\s+"
            r"(?:\w+\s+)?(?:top|best|first|most\s+(?:relevant|similar|suitable))\b",
            _START_ZH + _UP_TO_ZH + r"(?:排序|排名|重排)",
            r"(?:返回|检索|给出|选出|找出|挑出|保留|选择|查找)[^，。；是否]{0,6}"
            r"(?:前\s*[\d一二三五十]+|最(?:相关|匹配|好|合适|相似))",
        ),
    ),
    (
        "free-text",
        "the model answers yes or no; whatever else is asked for is never written and makes the score less sure. "
        "Ask one question that yes or no answers",
        (
            _START + r"(?:list|enumerate|explain|justify|summari[sz]e|translate|extract|generate|describe)\b",
            _START + r"(?:answer|reply to)\s+(?:the|this|my)\s+(?:question|query|user)",
            r"\b(?:and|then|also)\s+(?:explain|justify|say|tell|state)\s+(?:why|how\s+you|your|the\s+reason)",
            r"\b(?:give|return|output|provide|write)\s+(?:\w+\s+){0,3}?"
            r"(?:lists?|explanations?|reasons?|reasoning|summar(?:y|ies)|json|sentences?|translations?)\b",
            _START_ZH + r"(?:解释|列出|列举|总结|概括|翻译|提取|生成|描述|回答)(?!是|否|了)",
            r"(?<!是否)(?<!能否)(?:给出|写出|输出|提供|说明|返回)(?!了)[^，。；是否]{0,6}"
            r"(?:解释|理由|原因|列表|清单|摘要|总结|JSON)",
        ),
    ),
    (
        "threshold",
        "the model does not know its own score, so a limit in the instruction shifts all scores and cuts none off; "
        "set the threshold through a policy or score_threshold",
        (
            rf"\b{_QUANTITY}\s*(?:is|of|are|must be)?\s*(?:above|over|below|under|at least|at most|exceed\w*"
            rf"|(?:higher|greater|more|less|lower) than|[<>≥≤]=?)\s*{_SHARE}",
            rf"\bthreshold\s*(?:of|is|at|=|:)?\s*{_SHARE}",
            rf"\b(?:at least|more than|above|over)\s*{_SHARE}\s*"
            r"(?:relevant|similar|certain|sure|confident|identical|match)",
            rf"{_QUANTITY_ZH}[^，。；]{{0,4}}?(?:高于|大于|超过|不低于|不小于|低于|小于|至少|达到|[<>≥≤＞＜]=?)\s*为?\s*{_SHARE}",
            rf"阈值[^，。；]{{0,3}}?{_SHARE}",
            rf"{_SHARE}\s*(?:以上)?的?(?:相关|相似|匹配|把握|确定)",
        ),
    ),
    (
        "several-tasks",
        "one score cannot answer several questions, and which of them it answers is open; ask one question, and score "
        "once per question",
        (
            r"\bwhether\b[^.;]*?\band\s+(?:also\s+)?(?:whether|if)\b",
            r"\b(?:and|then)\s+(?:then\s+|also\s+)?(?:judge|check|decide|determine|verify|assess)\s+(?:whether|if|how)\b",
            r"(?<!\d)1[.)、）].*?(?<!\d)2[.)、）]",
            r"是否[^。；]*?(?:以及|并且|同时|并|和|还要?)[^，。；是]{0,6}是否",
            r"(?:并且?|同时|然后|再|以及|[。；])\s*(?:还要?|再|请)?(?:判断|检查|确定|识别|评估|翻译|总结)",
        ),
    ),
)
_RULES: Final = tuple(
    (code, message, re.compile("|".join(patterns), re.IGNORECASE)) for code, message, patterns in _TABLE
)
# Two Chinese characters count as one word.
_WORD: Final = re.compile(r"[\u3400-\u9fff]{1,2}|[^\W\u3400-\u9fff]+(?:['’-][^\W\u3400-\u9fff]+)*")


@functools.lru_cache(maxsize=256)  # a service sees few texts, and each of them with every call
def lint_instruction(text: str) -> tuple[LintWarning, ...]:
    """Look for wording, English or Chinese, that changes what the score means; no model is asked.

    The patterns are narrow on purpose. An instruction without a warning may still be a bad one: calibrate with it.

    Args:
        text: The instruction as the model would read it.

    Returns:
        At most one warning per code; empty where nothing was found.
    """
    problem = text_problem(text)
    if problem is not None:
        return (LintWarning("unusable", f"no model can be given this: the text {problem}", text[:40]),)
    found = [
        LintWarning(code, message, match.group().strip(" ,.;:!?，。；：！？"))
        for code, message, rule in _RULES
        if (match := rule.search(text)) is not None
    ]
    words = len(_WORD.findall(text))
    if words > MAX_WORDS:
        message = (
            f"more than {MAX_WORDS} words take room from the document, and scores follow details of the wording; "
            "keep to one sentence"
        )
        found.append(LintWarning("too-long", message, f"{words} words"))
    return tuple(found)

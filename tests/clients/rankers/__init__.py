"""Every client as one function: texts in, positions and scores out, best first."""

from rankers.haystack import HAYSTACK
from rankers.langchain import LANGCHAIN
from rankers.litellm import LITELLM
from rankers.llama_index import LLAMA_INDEX
from rankers.ranker import Ranker
from rankers.vendors import VENDORS

RANKERS: tuple[Ranker, ...] = (*VENDORS, *LITELLM, *LANGCHAIN, *LLAMA_INDEX, *HAYSTACK)

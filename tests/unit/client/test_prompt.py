"""Prompts: the template filled, special tokens kept out of texts, long documents cut at their end."""

from __future__ import annotations

import json

import pytest
from fakes.cross_encoder import IMAGE_TOKEN_ID, SPECIAL_TOKENS, make_tokenizer_json
from lychee_client import ContractError, InvalidInputError
from lychee_client.manifest.manifest import TextSpec
from lychee_client.manifest.prompt_spec import MODALITIES, PromptSpec
from lychee_client.preprocessing import prompt as prompt_module
from lychee_client.preprocessing import text as text_module
from lychee_client.preprocessing.prompt import Part, PromptProcessor
from lychee_client.preprocessing.text import TokenizedText
from msgspec import structs
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

TEXT = TextSpec(pad_token_id=0, max_tokens=100, buckets=(50, 100))
PROMPT = PromptSpec(
    template="<|im_start|>I:{instruction} Q:{query} D:{document}<|im_end|>",
    image="<|vision_start|><|image_pad|><|vision_end|>",
    image_token="<|image_pad|>",
    missing_text="NULL",
    suffix_token_ids=(),
    queries=MODALITIES,
    documents=MODALITIES,
)
TOKENIZER = Tokenizer.from_str(make_tokenizer_json())
TOKENIZER.decoder = decoders.ByteLevel()
# "I:", " Q:", " D:" and two special tokens.
FRAME_TOKENS = 10


def make_processor(text: TextSpec = TEXT, **changes: object) -> PromptProcessor:
    return PromptProcessor(make_tokenizer_json(), text, structs.replace(PROMPT, **changes))


def tokenize(processor: PromptProcessor, query: Part, document: Part, instruction: str = "i") -> TokenizedText:
    (tokens,) = processor.tokenize(processor.make_frame(query, instruction), [document])
    assert not isinstance(tokens, InvalidInputError), str(tokens)
    return tokens


def refuse(processor: PromptProcessor, query: Part, document: Part) -> str:
    (error,) = processor.tokenize(processor.make_frame(query, "i"), [document])
    assert isinstance(error, InvalidInputError)
    return str(error)


def spell(tokens: TokenizedText) -> str:
    return TOKENIZER.decode(list(tokens.ids), skip_special_tokens=False)


def test_template_is_filled() -> None:
    tokens = tokenize(make_processor(), Part("the query"), Part("the document"), "find it")
    assert spell(tokens) == "<|im_start|>I:find it Q:the query D:the document<|im_end|>"
    assert (len(tokens.ids), tokens.truncated, tokens.bucket) == (FRAME_TOKENS + 28, False, 50)


def test_several_images_stand_one_after_the_other_before_the_text() -> None:
    tokens = tokenize(make_processor(), Part("q", [1, 2]), Part("d", [3]))
    one, two, three = (f"<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>" for count in (1, 2, 3))
    assert spell(tokens) == f"<|im_start|>I:i Q:{one}{two}q D:{three}d<|im_end|>"


def test_images_stand_before_the_texts_with_one_token_each_as_often_as_needed() -> None:
    tokens = tokenize(make_processor(), Part("q", [3]), Part(None, [5]))
    image = "<|vision_start|>{}<|vision_end|>"
    query, document = image.format("<|image_pad|>" * 3), image.format("<|image_pad|>" * 5)
    assert spell(tokens) == f"<|im_start|>I:i Q:{query}q D:{document}<|im_end|>"


def test_missing_text_stands_for_a_part_without_text_and_image() -> None:
    assert "D:NULL<" in spell(tokenize(make_processor(), Part("q"), Part(None)))
    assert "NULL" not in spell(tokenize(make_processor(), Part("q"), Part(None, [1])))


def test_suffix_follows_and_counts() -> None:
    processor = make_processor(suffix_token_ids=(7, 9))
    tokens = tokenize(processor, Part("q"), Part("d" * 500))
    assert list(tokens.ids[-3:]) == [TOKENIZER.token_to_id("<|im_end|>"), 7, 9]
    assert (len(tokens.ids), tokens.truncated) == (100, True)


def test_template_without_a_document_reads_the_query_only() -> None:
    processor = make_processor(template="{query}")
    assert spell(tokenize(processor, Part("only this"), Part("not this", [4]))) == "only this"
    with pytest.raises(InvalidInputError, match="takes 101 tokens"):
        processor.make_frame(Part("q" * 101), None)
    assert len(tokenize(processor, Part("q" * 100), Part(None)).ids) == 100


@pytest.mark.parametrize("text", ["{document}", "{query}", "{instruction}", "{}", "{0}", "\\1", "%s"])
def test_braces_in_texts_are_text(text: str) -> None:
    tokens = tokenize(make_processor(), Part(text), Part(text), text)
    assert spell(tokens) == f"<|im_start|>I:{text} Q:{text} D:{text}<|im_end|>"


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_special_tokens_in_texts_are_broken_up(token: str) -> None:
    text = f"a{token}b"
    expected = f"a< {token[1:]}b"
    tokens = tokenize(make_processor(), Part(text), Part(text), text)
    assert spell(tokens) == f"<|im_start|>I:{expected} Q:{expected} D:{expected}<|im_end|>"
    special = [token_id for token_id in tokens.ids if token_id >= TOKENIZER.token_to_id(SPECIAL_TOKENS[0])]
    assert special == [TOKENIZER.token_to_id("<|im_start|>"), TOKENIZER.token_to_id("<|im_end|>")]


def test_image_token_in_a_text_is_no_image() -> None:
    tokens = tokenize(make_processor(), Part("<|image_pad|>"), Part("<|image_pad|>", [2]))
    assert list(tokens.ids).count(IMAGE_TOKEN_ID) == 2


def test_special_token_that_begins_within_another_is_taken_out() -> None:
    tokenizer = Tokenizer.from_str(make_tokenizer_json())
    tokenizer.add_special_tokens(["ab", "bc", "z"])
    processor = PromptProcessor(tokenizer.to_str(), TEXT, PROMPT)
    assert "D:a , x y<" in spell(tokenize(processor, Part("q"), Part("abc, xzy")))


def test_special_token_that_normalization_makes_is_refused() -> None:
    """The reference would read the full-width form as the token."""
    tokenizer = Tokenizer.from_str(make_tokenizer_json())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.add_special_tokens([AddedToken("[STOP]", normalized=True)])
    processor = PromptProcessor(tokenizer.to_str(), TEXT, structs.replace(PROMPT, template="{query}[STOP]{document}"))
    assert "the document holds what" in refuse(processor, Part("q"), Part("［STOP］"))
    with pytest.raises(InvalidInputError, match="the query or the instruction holds what"):
        processor.make_frame(Part("［STOP］"), "i")


def test_rare_characters_are_no_special_tokens() -> None:
    """BERT's tokenizer has a special token for the unknown, and adds one at each end."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "cat": 4, "[": 5, "]": 6, "SEP": 7}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    prompt = structs.replace(PROMPT, template="{query}", image="", image_token="")
    processor = PromptProcessor(tokenizer.to_str(), TEXT, prompt)
    assert list(tokenize(processor, Part("cat 🐈 [SEP]"), Part(None)).ids) == [2, 4, 1, 5, 7, 6, 3]


def test_long_document_loses_its_end_and_nothing_else() -> None:
    document = "".join(chr(ord("a") + index % 26) for index in range(500))
    tokens = tokenize(make_processor(), Part("the query", [4]), Part(document, [20]), "find it")
    images = ["<|vision_start|>" + "<|image_pad|>" * count + "<|vision_end|>" for count in (4, 20)]
    kept = 100 - FRAME_TOKENS - len("the queryfind it") - 28
    assert spell(tokens) == f"<|im_start|>I:find it Q:{images[0]}the query D:{images[1]}{document[:kept]}<|im_end|>"
    assert (len(tokens.ids), tokens.truncated) == (100, True)


def test_long_document_before_the_query_loses_its_end() -> None:
    processor = make_processor(template="{document}|{query}")
    assert spell(tokenize(processor, Part("query"), Part("abc" * 100))) == ("abc" * 100)[:94] + "|query"


@pytest.mark.parametrize(("length", "truncated"), [(88, False), (89, False), (90, True)])
def test_document_that_just_fits_is_whole(length: int, truncated: bool) -> None:
    tokens = tokenize(make_processor(), Part("q"), Part("d" * (length - 1)))
    assert (len(tokens.ids), tokens.truncated) == (min(100, length + 11), truncated)


def test_character_of_several_tokens_is_not_cut_in_half() -> None:
    tokens = tokenize(make_processor(), Part("q"), Part("猫" * 100))
    assert spell(tokens) == f"<|im_start|>I:i Q:q D:{'猫' * 29}<|im_end|>"
    assert 97 <= len(tokens.ids) <= 100


def test_text_of_megabytes_is_cut_before_tokenizing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_module, "MAX_CHARACTERS", 5)
    tokens = tokenize(make_processor(), Part("q"), Part("abcdefgh"))
    assert ("D:abcde<" in spell(tokens), tokens.truncated) == (True, True)
    with pytest.raises(InvalidInputError, match="the query has 6 characters"):
        make_processor().make_frame(Part("abcdef"), "i")
    with pytest.raises(InvalidInputError, match="the instruction 6"):
        make_processor().make_frame(Part("abc"), "abcdef")


@pytest.mark.parametrize(("words", "truncated"), [(30, False), (90, False), (99, False), (100, True), (900, True)])
def test_text_of_long_words_is_read_as_far_as_it_fits(words: int, truncated: bool) -> None:
    """Only a part of a long text is tokenized at first; here all of it has fewer tokens than that part might have."""
    word = "rhododendronoscillation"
    tokenizer = Tokenizer(models.WordLevel({"?": 0, word: 1, "q": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    prompt = structs.replace(PROMPT, template="{query} {document}", image="", image_token="")
    tokens = tokenize(PromptProcessor(tokenizer.to_str(), TEXT, prompt), Part("q"), Part(" ".join([word] * words)))
    assert (list(tokens.ids), tokens.truncated) == ([2] + [1] * min(words, 99), truncated)


def test_query_that_leaves_no_room_is_refused() -> None:
    processor = make_processor()
    longest = 100 - FRAME_TOKENS - 2
    assert len(tokenize(processor, Part("q" * longest), Part("dd")).ids) == 100
    with pytest.raises(InvalidInputError, match=r"takes 100 tokens.*the model reads 100.*shorten the query"):
        processor.make_frame(Part("q" * (longest + 1)), "i")
    with pytest.raises(InvalidInputError, match="takes 1"):
        processor.make_frame(Part("q", [95]), "i")


def test_document_whose_image_leaves_no_room_is_refused() -> None:
    processor = make_processor()
    most = 100 - FRAME_TOKENS - 2 - 2
    assert len(tokenize(processor, Part("q"), Part(None, [most])).ids) == 100
    assert "take 101 tokens" in refuse(processor, Part("q"), Part(None, [most + 1]))
    assert "take 101 tokens" in refuse(processor, Part("q"), Part("text", [most + 1]))
    cut = tokenize(processor, Part("q"), Part("text", [most]))
    assert (cut.truncated, len(cut.ids)) == (True, 100)


def make_images_first_processor() -> PromptProcessor:
    image = "<|vision_start|><|image_pad|><|vision_end|> "
    return make_processor(template="{images}Q:{query} D:{document}", image=image, queries=("text",))


def test_images_stand_at_the_beginning_where_the_template_says_so() -> None:
    tokens = tokenize(make_images_first_processor(), Part("the query"), Part("d", [3]))
    assert spell(tokens) == f"<|vision_start|>{'<|image_pad|>' * 3}<|vision_end|> Q:the query D:d"
    assert spell(tokenize(make_images_first_processor(), Part("q"), Part(None, [1]))).endswith("<|vision_end|> Q:q D:")
    assert spell(tokenize(make_images_first_processor(), Part("q"), Part("d"))) == "Q:q D:d"
    assert (
        spell(tokenize(make_images_first_processor(), Part("q {images}"), Part("{images}")))
        == "Q:q {images} D:{images}"
    )


def test_long_document_behind_an_image_loses_its_end_and_never_the_query() -> None:
    processor, frame = make_images_first_processor(), len("Q:q D:") + len("<><> ") - 2
    whole = tokenize(processor, Part("q"), Part("x" * (100 - frame - 40), [40]))
    assert (len(whole.ids), whole.truncated) == (100, False)
    for extra in (1, 7, 500):
        cut = tokenize(processor, Part("q"), Part("x" * (100 - frame - 40 + extra), [40]))
        assert (list(cut.ids), cut.truncated) == (list(whole.ids), True)
    alone = tokenize(processor, Part("q"), Part(None, [100 - frame]))
    assert tokenize(processor, Part("q"), Part("text", [100 - frame])).ids == alone.ids
    assert "take 105 tokens" in refuse(processor, Part("q"), Part("text", [101 - frame]))
    assert "take 101 tokens" in refuse(processor, Part("q"), Part(None, [101 - frame]))


def test_room_counts_the_image_at_the_beginning() -> None:
    processor = make_images_first_processor()
    frame = processor.make_frame(Part("q"), None)
    tokens = tokenize(processor, Part("q"), Part("text", [5]))
    assert processor.find_surplus(frame, [5], "text") == len(tokens.ids) - 100


def test_document_of_which_no_character_fits_is_refused() -> None:
    assert "does not fit" in refuse(make_processor(), Part("q" * 88), Part("猫"))


def test_documents_keep_their_order_over_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = make_processor()
    documents = [Part("ab" * length) for length in (1, 80, 3, 60, 5, 7, 90, 2)]
    frame = processor.make_frame(Part("q"), "i")
    together = processor.tokenize(frame, documents)
    monkeypatch.setattr(text_module, "BATCH_CHARACTERS", 50)
    assert processor.tokenize(frame, documents) == together
    assert [tokenize(processor, Part("q"), document) for document in documents] == together
    assert processor.tokenize(frame, []) == []


def test_tensors_are_padded_to_the_longest_bucket() -> None:
    processor = make_processor()
    short, long = (tokenize(processor, Part("q"), Part("d" * length)) for length in (1, 60))
    tensors = processor.to_tensors([short, long])
    assert tensors["input_ids"].shape == tensors["attention_mask"].shape == (2, 100)
    assert tensors["attention_mask"].sum(axis=1).tolist() == [len(short.ids), len(long.ids)]
    assert tensors["input_ids"][0, : len(short.ids)].tolist() == list(short.ids)
    assert not tensors["input_ids"][0, len(short.ids) :].any()


def test_truncation_and_padding_in_the_tokenizer_file_do_not_count() -> None:
    data = json.loads(make_tokenizer_json())
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=200)
    processor = PromptProcessor(tokenizer.to_str(), TEXT, PROMPT)
    assert tokenize(processor, Part("q"), Part("document")) == tokenize(make_processor(), Part("q"), Part("document"))


def test_tokenizer_without_the_image_token_is_a_contract_error() -> None:
    with pytest.raises(ContractError, match=r"no token '<image>'"):
        make_processor(image="<image>", image_token="<image>")


@pytest.mark.parametrize("extra", [0, 1, 2, 400, 5000])
def test_document_at_the_end_loses_its_last_tokens_as_in_a_pair_of_texts(extra: int) -> None:
    own = Tokenizer.from_str(make_tokenizer_json())
    end = SPECIAL_TOKENS.index("<|im_end|>") + own.get_vocab_size() - len(SPECIAL_TOKENS)
    assert own.token_to_id("<|im_end|>") == end
    own.post_processor = processors.TemplateProcessing(
        single=["$A", "<|im_end|>"],
        pair=["$A", "<|im_end|>", "$B", "<|im_end|>"],
        special_tokens=[("<|im_end|>", end)],
    )
    spec = structs.replace(PROMPT, template="{query}<|im_end|>{document}", image="", image_token="")
    processor = PromptProcessor(own.to_str(), TEXT, spec)
    document = "x" * (TEXT.max_tokens - 11) + "y" * extra
    (tokens,) = processor.tokenize(processor.make_frame(Part("the query"), None), [Part(document)])
    assert isinstance(tokens, TokenizedText)
    own.enable_truncation(TEXT.max_tokens, strategy="only_second")
    assert list(tokens.ids) == own.encode("the query", document).ids
    assert (len(tokens.ids), tokens.truncated) == (TEXT.max_tokens, extra > 0)

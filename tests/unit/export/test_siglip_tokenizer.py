import json
from pathlib import Path

import pytest
from checkpoints.siglip import unigram_pieces, write_gemma_tokenizer, write_sentencepiece
from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.families.siglip_tokenizer import canonical_tokenizer, is_canonical, lower_cased
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import Unigram

TEXTS = ["Hello, World!", "  小猫：喜欢 THE sofa?! ", "a_b-c", "don't", "a\u3000b\tc", "!!!", "x </s> y"]


def make_source(folder: Path) -> CheckpointSource:
    return CheckpointSource("model", "0", folder, {"model_type": "siglip"})


@pytest.fixture
def source(tmp_path: Path) -> CheckpointSource:
    """Return a folder with spiece.model."""
    write_sentencepiece(tmp_path)
    return make_source(tmp_path)


def test_case_punctuation_and_spaces_do_not_matter(source: CheckpointSource) -> None:
    tokenizer, _ = canonical_tokenizer(source)
    assert tokenizer.encode("The CAT, sleeps!  on").tokens == tokenizer.encode("the cat\nsleeps on").tokens


def test_every_text_ends_with_the_end_token(source: CheckpointSource) -> None:
    tokenizer, pad_token_id = canonical_tokenizer(source)
    assert pad_token_id == 1
    assert tokenizer.encode("cat").tokens == ["▁cat", "</s>"]
    tokenizer.enable_truncation(4)
    assert tokenizer.encode("z z z z z z").ids[-1] == 1


def test_chinese_punctuation_stays(source: CheckpointSource) -> None:
    tokenizer, _ = canonical_tokenizer(source)
    assert tokenizer.encode("猫，").ids != tokenizer.encode("猫").ids


def test_tokenizer_json_serves_where_the_sentencepiece_file_is_absent(source: CheckpointSource) -> None:
    expected, _ = canonical_tokenizer(source)
    (source.folder / "spiece.model").unlink()
    plain = Tokenizer(Unigram(unigram_pieces(), unk_id=2))
    plain.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    plain.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.NFKC()])
    plain.save(str(source.folder / "tokenizer.json"))
    tokenizer, pad_token_id = canonical_tokenizer(source)
    assert pad_token_id == 1
    for text in TEXTS:
        assert tokenizer.encode(text).ids == expected.encode(text).ids


def test_special_tokens_may_be_objects(source: CheckpointSource) -> None:
    path = source.folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"pad_token": {"content": "<pad>", "special": True}}
    path.write_text(json.dumps(config))
    _, pad_token_id = canonical_tokenizer(source)
    assert pad_token_id == 0


def test_other_kind_of_sentencepiece_model_is_refused(source: CheckpointSource) -> None:
    from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

    path = source.folder / "spiece.model"
    model = sentencepiece.ModelProto()
    model.ParseFromString(path.read_bytes())
    model.trainer_spec.model_type = 2
    path.write_bytes(model.SerializeToString())
    with pytest.raises(Exception, match="model type is 2, expected 1"):
        canonical_tokenizer(source)


def test_gemma_tokenizer_is_no_canonical_one(tmp_path: Path) -> None:
    write_gemma_tokenizer(tmp_path)
    assert not is_canonical(make_source(tmp_path))


def test_lower_casing_is_added_once(tmp_path: Path) -> None:
    write_gemma_tokenizer(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode("The CAT").ids != tokenizer.encode("the cat").ids
    once = lower_cased(tokenizer).to_str()
    assert tokenizer.encode("The CAT").ids == tokenizer.encode("the cat").ids
    assert lower_cased(tokenizer).to_str() == once

"""What distinguishes published SigLIP and BLIP repositories from what transformers writes today.

Each function changes a checkpoint's folder. Sources: the file listings and configurations of google/siglip-*,
google/siglip2-*, HuggingFaceM4/siglip-* and Salesforce/blip-itm-base-coco on the hub.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

_BYTE = 6
"""The value of SentencePiece.Type."""
_GENERATION = {
    "add_cross_attention": False,
    "bad_words_ids": None,
    "is_decoder": True,
    "num_beams": 1,
    "use_cache": True,
}


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) if path.is_file() else {}
    content |= changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}, indent=2))


def shorten_config(folder: Path) -> None:
    """Leave out of config.json what google/siglip2-* leave out: class and special tokens."""
    config = json.loads((folder / "config.json").read_text())
    kept = {
        part: {key: value for key, value in config[part].items() if not key.endswith(("token_id", "dtype"))}
        for part in ("text_config", "vision_config")
    }
    for part in kept.values():
        part.pop("projection_size", None)
    version = {"transformers_version": "4.37.0.dev0", "torch_dtype": "float32"}
    (folder / "config.json").write_text(
        json.dumps({"initializer_factor": 1.0, "model_type": config["model_type"], **version, **kept})
    )
    edit_json(folder / "preprocessor_config.json", processor_class="SiglipProcessor", rescale_factor=1 / 255)
    if (folder / "spiece.model").is_file():
        edit_json(folder / "special_tokens_map.json", eos_token={"content": "</s>", "lstrip": True}, pad_token="</s>")


def name_code(folder: Path) -> None:
    """Name Python code in config.json, as HuggingFaceM4/siglip-* do, for a class that transformers has as well."""
    code = {"AutoConfig": "own--configuration_siglip.SiglipConfig", "AutoModel": "own--modeling_siglip.SiglipModel"}
    edit_json(folder / "config.json", auto_map=code)


def pickle_weights(folder: Path) -> None:
    """Write pytorch_model.bin instead of safetensors, with the position ids that transformers kept until 4.31."""
    weights = load_file(folder / "model.safetensors")
    positions = {
        name.replace("position_embedding.weight", "position_ids").replace("position_embeddings.weight", "position_ids"):
        torch.arange(len(value))[None]
        for name, value in weights.items()
        if name.endswith(("position_embedding.weight", "position_embeddings.weight")) and value.dim() == 2
    }  # fmt: skip
    torch.save(weights | positions, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def split_weights(folder: Path) -> None:
    """Split the weights into two shards with an index."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    places = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def nest_the_processor(folder: Path) -> None:
    """Write processor_config.json with the image processor in it, as transformers 5 saves a processor."""
    path = folder / "preprocessor_config.json"
    content = {"image_processor": json.loads(path.read_text()), "processor_class": "BlipProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(content))
    path.unlink()


def complete_the_tokenizer(folder: Path) -> None:
    """Write all files of a BERT tokenizer that Salesforce/blip-itm-base-coco has."""
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    tokens = {"cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]"}
    (folder / "special_tokens_map.json").write_text(json.dumps(tokens | {"unk_token": "[UNK]"}))
    options = {"do_basic_tokenize": True, "do_lower_case": True, "name_or_path": "bert-base-uncased"}
    options |= {"model_max_length": 512, "processor_class": "BlipProcessor", "tokenize_chinese_chars": True}
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(tokens | options | {"strip_accents": None, "tokenizer_class": "BertTokenizer"}))
    (folder / "tf_model.h5").write_bytes(b"the same for TensorFlow")


def lengthen_config(folder: Path) -> None:
    """Add what transformers 4.26 wrote into the config.json of Salesforce/blip-itm-base-coco."""
    config = json.loads((folder / "config.json").read_text())
    text = (
        config["text_config"] | _GENERATION | {"_name_or_path": "", "torch_dtype": None, "transformers_version": "4.26"}
    )
    edit_json(folder / "config.json", text_config=text, _commit_hash=None, torch_dtype="float32")


def fall_back_to_bytes(folder: Path) -> int:
    """Give spiece.model the 256 bytes that the multilingual SigLIP has; return the id of the first."""
    messages: Any = sentencepiece
    model = messages.ModelProto()
    model.ParseFromString((folder / "spiece.model").read_bytes())
    first = len(model.pieces)
    model.trainer_spec.byte_fallback = True
    for byte in range(256):
        model.pieces.add(piece=f"<0x{byte:02X}>", score=0.0, type=_BYTE)
    (folder / "spiece.model").write_bytes(model.SerializeToString())
    return first

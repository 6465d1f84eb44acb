"""Checkpoints that cannot be exported: each is named by what it is, with what to do, and nothing is written."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from checkpoints.blip import build_blip
from checkpoints.clip import build_chinese_clip, build_clip
from checkpoints.open_clip import build_open_clip
from checkpoints.qwen_vl import build_monoqwen, build_qwen2_5_vl
from checkpoints.qwen_vl_variants import build_adapter, build_monoqwen_adapter
from lychee_export.checkpoint.hub import download
from lychee_export.checkpoint.lookup import find_checkpoint
from lychee_export.checkpoint.reading import Reading
from lychee_export.errors import CheckpointError
from lychee_export.exporter import export_checkpoint
from lychee_export.families import load_checkpoint
from safetensors.torch import load_file, save_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Break = Callable[[Path], Any]


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def write_config(folder: Path, **content: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content))


def name_base(folder: Path, name: str | None) -> None:
    base = build_monoqwen(folder.parent / "base")
    edit(build_adapter(folder, base) / "adapter_config.json", base_model_name_or_path=name)


def quantize(folder: Path, **config: Any) -> None:
    edit(build_qwen2_5_vl(folder) / "config.json", quantization_config=config)


def lose_a_shard(folder: Path) -> None:
    next(build_qwen2_5_vl(folder).glob("model-00002-*")).unlink()


def turn_strangely(folder: Path) -> None:
    config = json.loads((build_qwen2_5_vl(folder) / "config.json").read_text())
    config["text_config"]["rope_parameters"]["rope_type"] = "spiral"
    edit(folder / "config.json", text_config=config["text_config"], transformers_version="99.1.0")


def keep_sentencepiece_alone(folder: Path) -> None:
    build_blip(folder)
    for name in ("vocab.txt", "tokenizer.json"):
        (folder / name).unlink(missing_ok=True)
    (folder / "tokenizer.model").write_bytes(b"pieces")


def bring_a_tokenizer_of_code(folder: Path) -> None:
    code = {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]}
    edit(build_chinese_clip(folder) / "tokenizer_config.json", auto_map=code, tokenizer_class="OwnTokenizer")
    (folder / "tokenization_own.py").write_text(f"open({str(folder.parent / 'ran')!r}, 'w')\n")


def keep_the_adapter_beside_the_weights(folder: Path) -> None:
    (build_monoqwen(folder) / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))


def describe_open_clip(folder: Path, part: str, **changes: Any) -> None:
    build_open_clip(folder)
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    inner = config["preprocess_cfg"] if part == "preprocess_cfg" else config["model_cfg"]
    (inner[part] if part.endswith("t_cfg") or part == "vision_cfg" else inner).update(changes)
    path.write_text(json.dumps(config))


def damage_open_clip(folder: Path) -> None:
    build_open_clip(folder, pickled=True)
    path = folder / "open_clip_pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:1000])


def lose_an_open_clip_weight(folder: Path) -> None:
    build_open_clip(folder)
    weights = load_file(folder / "open_clip_model.safetensors")
    del weights["visual.proj"]
    save_file(weights, folder / "open_clip_model.safetensors")


def describe_a_text_model(folder: Path) -> None:
    folder.mkdir()
    kinds = ("models.Transformer", "models.Pooling", "models.Dense")
    modules = [
        {"idx": index, "name": str(index), "path": f"{index}_{kind[7:]}", "type": f"sentence_transformers.{kind}"}
        for index, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))


BAD: dict[str, tuple[Break, str]] = {
    "adapter whose base is on the hub": (
        lambda folder: name_base(folder, "Qwen/Qwen2-VL-2B-Instruct"),
        r"is a LoRA adapter, and its base model cannot be read: Qwen/Qwen2-VL-2B-Instruct is not in the cache .*"
        r"Name the folder of Qwen/Qwen2-VL-2B-Instruct with --base",
    ),
    "adapter whose base lies on another machine": (
        lambda folder: name_base(folder, "/models/qwen2-vl"),
        r"is a LoRA adapter, and its base model cannot be read: no checkpoint '/models/qwen2-vl'.* with --base",
    ),
    "adapter that names no base": (lambda folder: name_base(folder, None), "names no base model; name it with --base"),
    "adapter of another kind": (
        lambda folder: edit(build_monoqwen_adapter(folder) / "adapter_config.json", peft_type="IA3"),
        r"adapter_config\.json: peft_type is 'IA3'; only LORA can be merged",
    ),
    "adapter without its weights": (
        lambda folder: (build_monoqwen_adapter(folder) / "adapter_model.safetensors").unlink(),
        r"holds no weights; expected adapter_model\.safetensors or adapter_model\.bin",
    ),
    "adapter beside full weights": (
        keep_the_adapter_beside_the_weights,
        r"holds both full weights \(model\.safetensors\) and adapter_config\.json.*keep one of them",
    ),
    "missing shard": (lose_a_shard, r"index\.json names \d files, and model-00002-\S+ is not there; download"),
    "AWQ": (
        lambda folder: quantize(folder, quant_method="awq", bits=4, group_size=128),
        "quantized by awq to 4 bits .*Take the original checkpoint.*--precision w8 or w4",
    ),
    "GPTQ": (lambda folder: quantize(folder, quant_method="gptq", bits=8), "quantized by gptq to 8 bits"),
    "bitsandbytes": (lambda folder: quantize(folder, load_in_4bit=True), r"quantized by bitsandbytes \(quant"),
    "model of a newer transformers": (
        lambda folder: write_config(folder, model_type="qwen9_vl", transformers_version="99.1.0"),
        r"unknown model_type 'qwen9_vl'.*config\.json was written by transformers 99\.1\.0, and \S+ is installed: "
        r"export with transformers 99\.1\.0 or later",
    ),
    "positions of a newer transformers": (
        turn_strangely,
        r"rotary positions of type 'spiral'; transformers \S+ knows .*default.* written by transformers 99\.1\.0",
    ),
    "model of code": (
        lambda folder: write_config(folder, model_type="own", auto_map={"AutoModel": "modeling_own.OwnModel"}),
        r"unknown model_type 'own'.*brings Python code of its own \(auto_map: modeling_own\.OwnModel\), which is never",
    ),
    "tokenizer of code": (
        bring_a_tokenizer_of_code,
        r"tokenizer in .* is Python code of the checkpoint \(auto_map in tokenizer_config\.json\), which is never run",
    ),
    "SentencePiece alone": (
        keep_sentencepiece_alone,
        r"is a SentencePiece file alone \(tokenizer\.model\); the client reads tokenizer\.json\. Write one where",
    ),
    "open_clip with a tower of timm": (
        lambda folder: describe_open_clip(folder, "vision_cfg", timm_model_name="vit_base_patch16_siglip_224"),
        "vision_cfg.timm_model_name is 'vit_base_patch16_siglip_224', so that this is not the plain CLIP",
    ),
    "open_clip with another pooling": (
        lambda folder: describe_open_clip(folder, "text_cfg", pool_type="last"),
        "text_cfg.pool_type is 'last', so that this is not the plain CLIP",
    ),
    "open_clip with a bias": (
        lambda folder: describe_open_clip(folder, "model_cfg", init_logit_bias=-10),
        "model_cfg.init_logit_bias is -10, so that this is not the plain CLIP",
    ),
    "open_clip that keeps the longest edge": (
        lambda folder: describe_open_clip(folder, "preprocess_cfg", resize_mode="longest"),
        "resize_mode 'longest' and interpolation 'bicubic'; the client knows shortest and squash",
    ),
    "open_clip without its settings": (
        lambda folder: describe_open_clip(folder, "vision_cfg", width=None),
        "open_clip_config.json is no description of a CLIP model: TypeError",
    ),
    "truncated weights of open_clip": (damage_open_clip, r"cannot read open_clip's weights in .*; download it again"),
    "incomplete weights of open_clip": (
        lose_an_open_clip_weight,
        "lack what CLIPModel needs: visual_projection.weight",
    ),
    "text model of sentence-transformers": (
        describe_a_text_model,
        "sentence-transformers made of Transformer, Pooling, Dense; of these only CLIPModel ranks",
    ),
}


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the machine off the hub; its cache is an empty folder."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("name", BAD)
def test_bad_checkpoint_is_explained_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    make, message = BAD[name]
    make(tmp_path / "checkpoint")
    repository = tmp_path / "models"
    (repository / "encoder").mkdir(parents=True)
    (repository / "encoder" / "config.pbtxt").write_text("name: 'encoder'")
    with pytest.raises(CheckpointError, match=message):
        export_checkpoint(str(tmp_path / "checkpoint"), repository)
    assert [path.relative_to(repository) for path in sorted(repository.rglob("*"))] == [
        Path("encoder"),
        Path("encoder/config.pbtxt"),
    ]
    assert not (tmp_path / "ran").exists()
    with pytest.raises(CheckpointError):
        export_checkpoint(str(tmp_path / "checkpoint"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_adapter_without_peft_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(CheckpointError, match=r"LoRA adapter .*pip install 'lychee-rerank-export\[peft\]'"):
        load_checkpoint(str(build_monoqwen_adapter(tmp_path / "adapter")))


def test_base_is_refused_for_full_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds full weights and no adapter_config\.json.*leave --base out"):
        find_checkpoint(str(build_clip(tmp_path)), Reading(base=str(tmp_path)))


class Hub(BaseHTTPRequestHandler):
    """A hub whose one model tells its files to everybody and gives them to nobody."""

    def do_GET(self) -> None:
        """Answer what huggingface_hub asks."""
        if self.path.startswith("/api/"):
            model = {"id": "owner/gated", "sha": COMMIT, "siblings": [{"rfilename": "config.json"}]}
            files = [{"type": "file", "path": "config.json", "size": 2, "oid": COMMIT}]
            body = json.dumps(files if "/tree/" in self.path else model).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
        else:
            body = b""
            self.send_response(401)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("X-Error-Message", "Access to model owner/gated is restricted.")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 the name that http.server asks for

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Serve a hub on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        huggingface_hub.constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
    )
    yield
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.usefixtures("hub")
def test_gated_model_without_a_token_says_how_to_get_in(tmp_path: Path) -> None:
    message = r"owner/gated is gated: accept its licence on the hub and set HF_TOKEN, or give the folder"
    with pytest.raises(CheckpointError, match=message):
        export_checkpoint("owner/gated", tmp_path / "models")
    assert not (tmp_path / "models").exists()
    with pytest.raises(CheckpointError, match=message):
        download("owner/gated", None)


@pytest.mark.usefixtures("hub")
def test_adapter_of_a_gated_base_says_whose_licence_it_is(tmp_path: Path) -> None:
    name_base(tmp_path / "adapter", "owner/gated")
    with pytest.raises(CheckpointError, match=r"adapter is a LoRA adapter.*owner/gated is gated: accept.*--base"):
        export_checkpoint(str(tmp_path / "adapter"), tmp_path / "models")
    assert not (tmp_path / "models").exists()

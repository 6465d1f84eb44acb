"""Checkpoints on disk and on the hub, whole and damaged, read by the loading code that users run."""

import hashlib
import json
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.constants
import huggingface_hub.errors
import pytest
import torch
from checkpoints.clip import build_clip
from checkpoints.colbert import build_lateon
from checkpoints.open_clip import build_open_clip
from checkpoints.qwen_vl import build_monoqwen
from checkpoints.qwen_vl_variants import build_adapter
from lychee_export.checkpoint import hub as hub_module
from lychee_export.checkpoint.lookup import find_checkpoint
from lychee_export.checkpoint.reading import Reading
from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families import load_checkpoint
from lychee_export.families.template import templates
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

COMMIT = "0123456789abcdef0123456789abcdef01234567"

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Save a tiny random BertModel."""

    def write(dtype: torch.dtype = torch.float32, **options: Any) -> Path:
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        )
        folder = tmp_path / "tiny-bert"
        BertModel(config).to(dtype).save_pretrained(folder, **options)
        return folder

    return write


def load(folder: Path) -> BertModel:
    return find_checkpoint(str(folder)).with_weights().load_model(BertModel)


def test_half_precision_checkpoint_loads_as_float32_in_evaluation_mode(save: Save) -> None:
    model = load(save(torch.bfloat16))
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert not model.training
    assert model.config._attn_implementation == "eager"


def test_folder_is_named_by_its_path_and_the_hash_of_its_weights(save: Save) -> None:
    folder = save()
    source = find_checkpoint(str(folder)).with_weights()
    assert source.model_id == "tiny-bert"
    assert source.revision == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]


def test_shards_are_read_and_hashed_together(save: Save) -> None:
    folder = save(max_shard_size="5KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    digest = hashlib.sha256(b"".join(shard.read_bytes() for shard in shards)).hexdigest()
    assert find_checkpoint(str(folder)).with_weights().revision == digest[:12]
    assert load(folder).embeddings.word_embeddings.weight.abs().sum() > 0


def test_without_weights_the_model_has_shapes_alone(save: Save) -> None:
    folder = save()
    (folder / "model.safetensors").unlink()
    model = find_checkpoint(str(folder)).load_model(BertModel)
    assert {weight.device.type for weight in model.parameters()} == {"meta"}


def test_folder_without_weights_is_reported(save: Save) -> None:
    folder = save()
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"tiny-bert holds no weights; expected model\.safetensors or"):
        load(folder)


def test_missing_shard_is_named(save: Save) -> None:
    folder = save(max_shard_size="5KB")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=rf"index\.json names \d+ files, and {shard.name} is not there"):
        load(folder)


@pytest.mark.parametrize("kept", [4, 100, -7])
def test_truncated_weights_are_reported_with_both_sizes(save: Save, kept: int) -> None:
    path = save() / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:kept])
    seen = len(content[:kept])
    with pytest.raises(CheckpointError, match=rf"model\.safetensors is truncated: it has {seen} bytes, .*\d+"):
        load(path.parent)


def test_file_that_is_no_safetensors_is_reported(save: Save) -> None:
    path = save() / "model.safetensors"
    path.write_bytes(b"\x10" + bytes(7) + b"not JSON at all." + bytes(100))
    with pytest.raises(CheckpointError, match="is no safetensors file"):
        load(path.parent)


def test_missing_weights_are_named_instead_of_made_up(save: Save) -> None:
    path = save() / "model.safetensors"
    weights = {name: value for name, value in load_file(path).items() if ".query." not in name}
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"lack what BertModel needs: encoder\.layer\.0\.attention\.self\.query\.bias"
    ):
        load(path.parent)


def test_weights_of_another_shape_are_reported(save: Save) -> None:
    folder = save()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    message = (
        r"other shapes than BertModel by config\.json: embeddings\.LayerNorm\.bias is \(16,\), expected \(32,\)"
        r".* and \d+ more"
    )
    with pytest.raises(CheckpointError, match=message):
        load(folder)


def test_missing_tokenizer_is_reported(save: Save) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer in .*expected tokenizer\.json or vocab\.txt"):
        find_checkpoint(str(save())).load_tokenizer()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"config\.json is not JSON"),
        ("[]", r"holds a list, expected an object"),
        ("{}", "unknown model_type None"),
    ],
)
def test_config_that_says_nothing_is_reported(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(tmp_path))


def test_unknown_family_is_reported_before_the_weights_are_looked_for(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(CheckpointError, match=r"unknown model_type 'gpt2'; .*lychee_mini \(such as lychee-mini\)"):
        load_checkpoint(str(tmp_path))


def test_folder_has_no_revision(save: Save) -> None:
    with pytest.raises(CheckpointError, match="is a folder and has no revision 'main'"):
        find_checkpoint(str(save()), Reading("main"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cut the machine off the hub; its cache is an empty folder."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cache(hub: Path, folder: Path, name: str = "owner/tiny") -> None:
    """Put a checkpoint into the hub's cache as a download does."""
    model = hub / f"models--{name.replace('/', '--')}"
    (model / "snapshots").mkdir(parents=True)
    (model / "refs").mkdir()
    folder.rename(model / "snapshots" / COMMIT)
    (model / "refs" / "main").write_text(COMMIT)


def test_cached_model_is_read_without_a_network_and_named_by_its_commit(save: Save, hub: Path) -> None:
    cache(hub, save())
    for revision in (None, "main", COMMIT):
        source: CheckpointSource = find_checkpoint("owner/tiny", Reading(revision)).with_weights()
        assert (source.model_id, source.revision) == ("owner/tiny", COMMIT)
    assert source.load_model(BertModel).config.hidden_size == 16


def test_adapter_by_its_name_on_the_hub_takes_its_base_from_there(tmp_path: Path, hub: Path) -> None:
    base_name, name = "Qwen/Qwen2-VL-2B-Instruct", "lightonai/MonoQwen2-VL-v0.1"
    base = build_monoqwen(tmp_path / "base")
    (base / "README.md").unlink()
    adapter = build_adapter(tmp_path / "adapter", base, original=base_name)
    config = json.loads((adapter / "adapter_config.json").read_text()) | {"base_model_name_or_path": base_name}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    cache(hub, base, base_name)
    cache(hub, adapter, name)
    card = load_checkpoint(name, Limits(max_img_size=224)).card
    assert card.spec.model_id == name
    assert card.spec.revision == f"{COMMIT}+{COMMIT[:12]}"
    assert card.spec.prompt == templates()["monoqwen2_vl"].prompt


def test_open_clip_and_sentence_transformers_by_their_names_on_the_hub(tmp_path: Path, hub: Path) -> None:
    build_open_clip(tmp_path / "open", timm=True)
    cache(hub, tmp_path / "open", "timm/vit_base_patch32_clip_224.openai")
    inner = build_clip(tmp_path / "st" / "0_CLIPModel")
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    (inner.parent / "modules.json").write_text(json.dumps([module]))
    cache(hub, inner.parent, "sentence-transformers/clip-ViT-B-32")
    for name in ("timm/vit_base_patch32_clip_224.openai", "sentence-transformers/clip-ViT-B-32"):
        spec = load_checkpoint(name).card.spec
        assert (spec.family, spec.model_id, spec.revision) == ("clip", name, COMMIT)


@pytest.mark.usefixtures("hub")
def test_model_that_is_not_cached_asks_for_a_folder() -> None:
    with pytest.raises(CheckpointError, match=r"owner/none at revision v2 is not in the cache .*give the folder"):
        find_checkpoint("owner/none", Reading("v2"))


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """Put a hub of one model in place of the real one; return its folder and the list of what is downloaded."""
    model, names = tmp_path / "served", []
    model.mkdir()

    def snapshot_download(model_id: str, *, revision: str | None, allow_patterns: Any, ignore_patterns: str) -> str:
        assert model_id == "owner/tiny"
        patterns = [allow_patterns] if isinstance(allow_patterns, str) else allow_patterns
        target = tmp_path / "cache" / COMMIT
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(model.rglob("*")):
            name = str(path.relative_to(model))
            if any(fnmatch(name, pattern) for pattern in patterns) and not fnmatch(name, ignore_patterns):
                names.append(f"{revision} {name}")
                (target / name).parent.mkdir(exist_ok=True)
                (target / name).write_bytes(path.read_bytes())
        return str(target)

    monkeypatch.setattr(hub_module, "snapshot_download", snapshot_download)
    return model, names


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (["model.safetensors", "pytorch_model.bin", "onnx/model.safetensors"], ["model.safetensors"]),
        (["pytorch_model.bin", "training_args.bin"], ["pytorch_model.bin"]),
    ],
)
def test_download_takes_one_format_of_the_weights_and_one_commit(
    downloads: tuple[Path, list[str]], weights: list[str], expected: list[str]
) -> None:
    model, names = downloads
    (model / "config.json").write_text("{}")
    (model / "onnx").mkdir()
    for name in weights:
        (model / name).touch()
    source = find_checkpoint("owner/tiny", Reading("v1"))
    assert names == ["v1 config.json"]
    assert source.with_weights().revision == COMMIT
    assert [name for name in names if "config" not in name] == [f"{COMMIT} {name}" for name in expected]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (huggingface_hub.errors.GatedRepoError, "owner/tiny at revision v1 is gated: .*HF_TOKEN"),
        (huggingface_hub.errors.RepositoryNotFoundError, "the hub has no model 'owner/tiny'"),
        (huggingface_hub.errors.RevisionNotFoundError, "the hub has owner/tiny, but no revision 'v1'"),
        (ConnectionResetError, "cannot download owner/tiny at revision v1"),
    ],
)
def test_refusals_of_the_hub_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], message: str
) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise error.__new__(error)

    monkeypatch.setattr(hub_module, "snapshot_download", refuse)
    with pytest.raises(CheckpointError, match=f"{message}.*give the folder"):
        find_checkpoint("owner/tiny", Reading("v1"))


def test_folder_inside_a_model_is_downloaded_alone(downloads: tuple[Path, list[str]]) -> None:
    model, names = downloads
    inner = build_clip(model / "0_CLIPModel")
    (inner / "onnx").mkdir()
    (inner / "onnx" / "config.json").write_text("{}")
    module = {"idx": 0, "name": "0", "path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    (model / "modules.json").write_text(json.dumps([module]))
    source = find_checkpoint("owner/tiny")
    texts = ["config.json", "merges.txt", "preprocessor_config.json", "tokenizer_config.json", "vocab.json"]
    assert names == ["None modules.json", *(f"{COMMIT} 0_CLIPModel/{name}" for name in texts)]
    source.with_weights()
    assert names[-1] == f"{COMMIT} 0_CLIPModel/model.safetensors"


def test_linear_layers_of_a_model_are_downloaded_with_it(downloads: tuple[Path, list[str]]) -> None:
    model, names = downloads
    build_lateon(model)
    (model / "2_Dense" / "pytorch_model.bin").touch()
    source = find_checkpoint("owner/tiny")
    layers = ("1_Dense", "2_Dense", "3_Dense")
    assert names[-3:] == [f"{COMMIT} {layer}/config.json" for layer in layers]
    source.with_weights()
    weights = [name for name in names if not name.endswith((".json", ".txt"))]
    assert weights == [f"{COMMIT} {folder}model.safetensors" for folder in ("", *(f"{layer}/" for layer in layers))]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"open_clip_model.safetensors": 60, "open_clip_pytorch_model.bin": 61, "config.json": 1}, 60),
        ({"0_CLIPModel/pytorch_model.bin": 50, "modules.json": 1}, 50),
        ({"adapter_model.safetensors": 7, "README.md": 1}, 7),
        ({"model-00001-of-00002.safetensors": 3, "model-00002-of-00002.safetensors": 4, "pytorch_model.bin": 9}, 7),
        ({"README.md": 1}, 0),
    ],
)
def test_size_of_the_weights_of_every_layout(
    monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int], expected: int
) -> None:
    files = [SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()]
    monkeypatch.setattr(hub_module.HfApi, "model_info", lambda *_, **__: SimpleNamespace(siblings=files))
    assert hub_module.weight_bytes("owner/tiny", None) == expected


def test_size_of_the_weights_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def info(*_: Any, **__: Any) -> Any:
        sizes = {"model.safetensors": 70, "pytorch_model.bin": 80, "onnx/model.safetensors": 90, "config.json": 1}
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()])

    monkeypatch.setattr(hub_module.HfApi, "model_info", info)
    assert hub_module.weight_bytes("owner/tiny", None) == 70


@pytest.mark.usefixtures("hub")
def test_size_of_the_weights_is_unknown_without_a_network() -> None:
    assert hub_module.weight_bytes("owner/tiny", None) is None

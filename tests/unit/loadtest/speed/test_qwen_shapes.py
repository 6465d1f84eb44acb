"""What the benchmark of Qwen2.5-VL-3B's shapes computes: operations, layouts, and the same scores in every way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lychee_loadtest.speed import qwen_shapes
from lychee_loadtest.speed.image_sizes import VISION_CONFIG, fit_patches, lay_out
from lychee_loadtest.speed.qwen_halves import bias_attention
from lychee_loadtest.speed.qwen_model import MODEL_CONFIG, WAYS, Pairs, Way, build, count_flops, prepare
from lychee_loadtest.speed.qwen_reasons import classify, explain
from lychee_loadtest.speed.qwen_text_cpu import extrapolate
from torch.utils.flop_counter import FlopCounterMode

TEXT: dict[str, Any] = MODEL_CONFIG["text_config"]
TINY: dict[str, Any] = MODEL_CONFIG | {
    "text_config": TEXT
    | {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        "bos_token_id": None,
        "eos_token_id": None,
    },
    "vision_config": VISION_CONFIG
    | {
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 48,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
    },
    "image_token_id": 500,
    "vision_start_token_id": 501,
    "vision_end_token_id": 502,
    "video_token_id": 503,
}
GRID = (20, 12)  # no multiple of a window's 8 patches


@pytest.fixture(scope="module")
def tiny() -> Any:
    return build(TINY, torch.float32, "cpu")


@pytest.mark.parametrize("pairs", [Pairs(3, 20), Pairs(2, 20, GRID)], ids=["texts", "images"])
def test_every_way_gives_the_same_scores(tiny: Any, pairs: Pairs) -> None:
    scores = {way: prepare(tiny, way, pairs)() for way in WAYS}

    assert scores["exported"].shape == (pairs.rows, 1)
    assert len(scores["exported"].unique()) == pairs.rows
    for way in WAYS:
        torch.testing.assert_close(scores[way], scores["exported"], atol=1e-5, rtol=0)


def test_fused_attention_is_used_in_every_layer_of_both_towers(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.Size] = []

    def attend(query: torch.Tensor, *others: torch.Tensor, **options: Any) -> torch.Tensor:
        calls.append(query.shape)
        return fused(query, *others, **options)

    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)

    prepare(tiny, "exported", Pairs(2, 20, GRID))()
    assert not calls
    prepare(tiny, "fused", Pairs(2, 20, GRID))()
    assert calls == [(2, 2, 240, 16)] * 2 + [(2, 4, 80, 16)] * 2


@pytest.mark.parametrize("pairs", [Pairs(1, 20), Pairs(3, 20, GRID)], ids=["texts", "images"])
def test_computed_operations_are_those_that_torch_counts(tiny: Any, pairs: Pairs) -> None:
    run = prepare(tiny, "exported", pairs)
    with FlopCounterMode(display=False) as counter:
        run()

    counted = count_flops(pairs, TINY["text_config"], TINY["vision_config"]).computed

    head = 2 * pairs.rows * TINY["text_config"]["hidden_size"]
    assert counter.get_total_flops() == counted + head


def test_needed_attention_reads_tokens_before_and_patches_in_the_window() -> None:
    text = count_flops(Pairs(1, 100), TEXT)
    assert text.computed - text.needed == 36 * 2 * 2048 * (2 * 100**2 - 100 * 101)

    pairs = Pairs(1, 0, (16, 16))  # four windows of 8 x 8
    image = count_flops(pairs, TEXT)
    saved_by_causality = count_flops(Pairs(1, pairs.tokens), TEXT)
    windows = 28 * 4 * 1280 * (256**2 - 4 * 64**2)
    assert image.computed - image.needed == windows + saved_by_causality.computed - saved_by_causality.needed


def test_language_model_has_the_3_09_billion_weights_that_are_published() -> None:
    with torch.device("meta"):
        model = build(MODEL_CONFIG, torch.bfloat16, "meta")
    assert round(sum(weight.numel() for weight in model.model.language_model.parameters()) / 1e9, 2) == 3.09


def test_images_become_the_patches_that_the_limit_allows() -> None:
    assert [lay_out(size) for size in (256, 384, 512)] == [(18, 18), (26, 26), (36, 36)]
    assert fit_patches(*qwen_shapes.PAGE, qwen_shapes.PAGE_PIXELS) == (84, 60)
    assert Pairs(1, 64, (84, 60)).tokens == 64 + 1260


def test_try_on_a_cpu_measures_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qwen_shapes, "TEXT_TOKENS", (8,))
    monkeypatch.setattr(qwen_shapes, "IMAGE_SIZES", (56,))
    monkeypatch.setattr(qwen_shapes, "PAGE_ROWS", ())
    monkeypatch.setattr(qwen_shapes, "LEAST_RUNS", 1)
    monkeypatch.setattr(qwen_shapes, "SECONDS", 0.0)
    saved: list[dict[str, Any]] = []
    options = {"side": 16, "rows": (1, 3), "long": False, "save": lambda record: saved.append(dict(record))}

    record = qwen_shapes.run(("texts", "attention", "images", "halves"), TINY, torch.bfloat16, "cpu", options)

    assert [len(record[part]) for part in ("texts", "attention", "images", "halves")] == [6, 0, 6, 8]
    assert [list(step)[2:] for step in saved][-1] == ["texts", "attention", "images", "halves"]
    assert all(line["seconds"] > 0 and line["share"] > 0 for line in record["texts"] + record["images"])


def test_large_keys_are_nan_in_plain_half_floats_only(tiny: Any) -> None:
    lost: dict[tuple[torch.dtype, Way], bool] = {}
    for dtype in (torch.float16, torch.bfloat16):
        model = build(TINY, dtype, "cpu")
        bias_attention(model, key=3000.0)  # times 3, times a head's width of 16: more than 65,504
        for way in ("exported", "fused"):
            lost[dtype, way] = bool(prepare(model, way, Pairs(2, 20, GRID))().isnan().any())

    assert lost == {
        (torch.float16, "exported"): True,
        (torch.float16, "fused"): False,
        (torch.bfloat16, "exported"): False,
        (torch.bfloat16, "fused"): False,
    }


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_a_variant_that_the_machine_lacks_does_not_lose_the_others() -> None:
    calls = []

    def fail_first(_run: Any) -> dict[str, Any]:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no such kernel")
        return {"seconds": 1.0}

    record = explain(build(TINY, torch.float32, "cpu"), 1, fail_first, 1e9)

    assert "no such kernel" in record["variants"][0]["error"]
    assert all("share" in line for line in record["variants"][1:])
    assert len(record["variants"]) == 10


def test_kernels_are_told_apart_by_name() -> None:
    kinds = {
        "nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_TNT": "matrix products",
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16": "attention",
        "fmha_cutlassF_bf16_aligned_64x128_rf_sm80": "attention",
        "void (anonymous namespace)::softmax_warp_forward<float>": "softmax",
        "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>": "copies",
        "triton_poi_fused__scaled_dot_product_cudnn_attention__unsafe_view_add": "element by element",
        "void at::native::vectorized_elementwise_kernel<8, silu_kernel>": "element by element",
    }
    assert {name: classify(name) for name in kinds} == kinds


def test_more_layers_cost_what_one_more_layer_costs() -> None:
    assert extrapolate({2: 1.5, 8: 4.5}) == pytest.approx(0.5 + 36 * 0.5)

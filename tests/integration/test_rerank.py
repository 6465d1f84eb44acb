"""Pairs in, ordered scores out: the SDK and the command against a real Triton."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints.inputs import read_labelled_texts
from lychee_client import Chunking, Image, ImageText, LycheeClient, Text
from lychee_export.families import Checkpoint
from lychee_server import TritonServer
from sklearn.metrics import average_precision_score

pytestmark = pytest.mark.triton

LYCHEE = str(Path(sys.executable).parent / "lychee")
TEXTS = [
    "退款流程：在订单页面点击申请退款",
    "The cat sleeps on the sofa all day.",
    "火箭从发射台升空",
    "A cup of espresso wakes you up.",
    "小猫喜欢晒太阳",
    "The palace was built in the fifteenth century, and its halls and gardens cover more than seventy hectares.",
    "x",
]


def catalogue(root: Path) -> dict[str, list[dict[str, str]]]:
    content: dict[str, list[dict[str, str]]] = json.loads(
        (root / "examples/catalogue/catalogue.json").read_text(encoding="utf-8")
    )
    return content


def test_fitting_photo_ranks_first_for_each_query(root: Path, photos: Path, client: LycheeClient) -> None:
    names = sorted(path.name for path in photos.glob("*.jpg"))
    expected = {query["text"]: query["photo"] for query in catalogue(root)["queries"]}
    documents = [Image.from_path(photos / name) for name in names]
    best = {query: names[client.rerank(query, documents).results[0].index] for query in expected}
    assert len(expected) == 6
    assert best == expected


def test_meaning_ranks_before_language(client: LycheeClient) -> None:
    cats = [
        "A tabby cat that sleeps on the sofa all day.",
        "店里的小猫喜欢在窗台上晒太阳。",
        "The cat sleeps on the sofa all day.",
    ]
    others = ["现磨意式浓缩咖啡，早上来一杯提神醒脑。", "How to brew espresso at home with a moka pot.", "早晨的咖啡"]
    for query in ("一只猫", "a cat"):
        order = [result.index for result in client.rerank(query, [*others, *cats]).results]
        assert set(order[:3]) == {3, 4, 5}


def test_what_is_relevant_ranks_first_for_labelled_queries(client: LycheeClient) -> None:
    labelled = read_labelled_texts()
    precisions = []
    for query, documents in labelled.items():
        scores = {
            result.index: result.logit for result in client.rerank(query, [text for text, _ in documents]).results
        }
        ordered = [scores[index] for index in range(len(documents))]
        precisions.append(average_precision_score([relevant for _, relevant in documents], ordered))
    assert len(labelled) >= 60
    assert sum(any("一" <= letter <= "鿿" for letter in query) for query in labelled) == len(labelled) // 2
    assert np.mean(precisions) > 0.9  # it is 0.94; of scores without meaning it would be 0.54


def test_scores_equal_the_torch_reference(
    client: LycheeClient, checkpoint: Checkpoint, embed_text: Callable[[str], torch.Tensor], photos: Path
) -> None:
    modules = {piece.signature.name: piece.module for piece in checkpoint.pieces}
    heads = modules["scoring_heads"].heads
    image = Image.from_path(photos / "cat.jpg")
    spec = client.manifest().image
    with torch.no_grad():
        query = embed_text("query: 一只猫")
        picture = modules["vision_encoder"](torch.from_numpy(image.prepare(spec).pixel_values[None]))
        texts = [embed_text(f"passage: {text}") for text in TEXTS]
        expected = [float(heads["text"](query, text)[0]) for text in texts]
        expected.append(float(heads["image"](query, picture)[0]))
        expected.append(float(heads["image_text"](query, texts[4], picture)[0]))
    response = client.rerank("一只猫", [*TEXTS, image, ImageText(image, TEXTS[4])])
    scores = {result.index: result.relevance_score for result in response.results}
    assert [scores[index] for index in range(9)] == pytest.approx(
        expected, abs=client.manifest().golden_pairs.tolerance
    )


def test_score_does_not_depend_on_the_other_documents(client: LycheeClient, photos: Path) -> None:
    documents = [*map(Text, TEXTS), *(Image.from_path(path) for path in sorted(photos.glob("*.jpg")))]
    together = {result.index: result.relevance_score for result in client.rerank("a cat", documents).results}
    alone = {index: client.score("a cat", document) for index, document in enumerate(documents)}
    assert together == pytest.approx(alone, abs=1e-4)


def test_golden_pairs_match(client: LycheeClient) -> None:
    report = client.check_golden_pairs()
    assert report.passed
    assert len(report.pairs) == 9


def test_any_query_modality_works_with_any_document_modality(client: LycheeClient, photos: Path) -> None:
    cat, coffee = (Image.from_path(photos / f"{name}.jpg") for name in ("cat", "coffee"))
    documents = [coffee, cat, ImageText(coffee, "a cup of coffee"), ImageText(cat, "a cat"), "a cup of coffee", "a cat"]
    for query in (Text("cat"), cat, ImageText(cat, "cat")):
        response = client.rerank(query, documents)
        assert not response.errors
        rank = {result.index: position for position, result in enumerate(response.results)}
        assert rank[1] < rank[0]
        assert rank[3] < rank[2]
        assert rank[5] < rank[4]


def test_broken_documents_cost_only_themselves(client: LycheeClient, photos: Path, tmp_path: Path) -> None:
    truncated = tmp_path / "truncated.jpg"
    truncated.write_bytes((photos / "cat.jpg").read_bytes()[:5000])
    no_image = tmp_path / "no-image.jpg"
    no_image.write_text("hello")
    documents = [
        "a cat on a sofa",
        "",
        "   \n",
        Image.from_path(tmp_path / "missing.jpg"),
        Image.from_path(truncated),
        Image.from_path(no_image),
        Image.from_path(photos / "cat.jpg"),
        ImageText(Image.from_path(tmp_path / "missing.jpg"), "a cat"),
        ImageText(Image.from_path(photos / "cat.jpg"), ""),
    ]
    response = client.rerank("a cat", documents)
    assert [result.index for result in response.results] == [6, 0]
    assert [error.index for error in response.errors] == [1, 2, 3, 4, 5, 7, 8]
    assert all(error.message for error in response.errors)


def test_odd_images_are_ranked(client: LycheeClient) -> None:
    sizes = [(1, 1), (20_000, 1), (1, 20_000), (20_000, 30)]
    documents = [Image.from_numpy(np.full((height, width, 3), 127, np.uint8)) for width, height in sizes]
    response = client.rerank("a cat", documents)
    assert not response.errors
    assert len(response.results) == len(sizes)


def test_long_text_is_truncated_and_says_so(client: LycheeClient) -> None:
    response = client.rerank("a cat", ["a cat", "a cat " * 2000])
    assert {result.index: result.truncated for result in response.results} == {0: False, 1: True}


def test_needle_in_a_long_text_is_found_by_its_chunk_and_missed_without(client: LycheeClient, tmp_path: Path) -> None:
    needle = "The tabby cat sleeps on the sofa all day, and purrs when it is stroked."
    filler = "The invoice of the quarter was sent to the office and paid by transfer. "
    book = filler * 150 + needle + " " + filler * 150
    documents = [book, "A cup of espresso wakes you up."]
    beginning = {result.index: result for result in client.rerank("a cat", documents).results}
    assert (beginning[0].truncated, beginning[0].chunk) == (True, None)
    response = client.rerank("a cat", documents, chunking=Chunking(max_chunks_per_doc=50))
    assert [result.index for result in response.results] == [0, 1]
    best, other = response.results
    assert best.chunk is not None
    assert needle in book[best.chunk.start : best.chunk.end]
    assert best.logit > beginning[0].logit + 0.5
    assert (best.truncated, other.chunk) == (False, None)
    alone = client.rerank("a cat", [book[best.chunk.start : best.chunk.end]]).results[0]
    assert (alone.truncated, alone.tokens) == (False, best.tokens)
    assert alone.logit == pytest.approx(best.logit, abs=1e-3)
    assert response.tokens_read > 8 * 512
    too_few = client.rerank("a cat", documents, chunking=Chunking(max_chunks_per_doc=3)).results
    assert [result.truncated for result in sorted(too_few, key=lambda result: result.index)] == [True, False]
    refused = client.rerank("a cat", documents, truncation=False)
    assert [failed.index for failed in refused.errors] == [0]


def test_more_documents_than_a_batch_keep_their_index(client: LycheeClient) -> None:
    documents = [f"a chair, number {number}" for number in range(70)]
    documents[41] = "a small cat"
    response = client.rerank("a cat", documents)
    assert response.results[0].index == 41
    assert sorted(result.index for result in response.results) == list(range(70))


def test_equal_documents_keep_the_callers_order(client: LycheeClient) -> None:
    response = client.rerank("a cat", ["a dog", "a cat", "a cat", "a dog", "a cat"])
    assert [result.index for result in response.results] == [1, 2, 4, 0, 3]


def test_no_documents_give_an_empty_response(client: LycheeClient) -> None:
    response = client.rerank("a cat", [])
    assert (response.results, response.errors) == ((), ())


def test_threads_get_the_answers_of_one_thread(client: LycheeClient, photos: Path) -> None:
    documents = [*TEXTS, *(Image.from_path(path) for path in sorted(photos.glob("*.jpg")))]
    queries = ["一只猫", "hot drink", "火箭", "a flower"] * 3
    expected = [client.rerank(query, documents).results for query in queries[:4]] * 3
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda query: client.rerank(query, documents).results, queries))
    for answer, reference in zip(answers, expected, strict=True):
        scores = {result.index: result.relevance_score for result in answer}
        assert scores == pytest.approx({result.index: result.relevance_score for result in reference}, abs=1e-4)


def run_lychee(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LYCHEE, *arguments], capture_output=True, text=True, timeout=60)


def test_command_ranks_files_as_json(server: TritonServer, photos: Path, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("怎么养猫", encoding="utf-8")
    files = [str(note), str(photos / "cat.jpg"), str(tmp_path / "missing.png"), str(photos / "coins.jpg")]
    finished = run_lychee("rerank", "--query", "一只猫", "--url", server.grpc_url, "--json", *files)
    assert finished.returncode == 0, finished.stderr
    answer = json.loads(finished.stdout)
    assert set(answer) == {"results", "errors", "timings", "model", "instruction", "warnings", "query"}
    best = answer["results"][0]
    assert {key: best[key] for key in ("index", "source", "modality", "decision")} == {
        "index": 1,
        "source": files[1],
        "modality": "image",
        "decision": "accept",
    }
    assert 0.9 < best["relevance_score"] <= 1
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert [(error["index"], error["source"]) for error in answer["errors"]] == [(2, files[2])]
    assert answer["timings"]["total_ms"] > 0


def test_command_prints_a_table(server: TritonServer, photos: Path) -> None:
    finished = run_lychee("rerank", "--query", "一只猫", "--url", server.grpc_url, str(photos / "cat.jpg"))
    assert finished.returncode == 0, finished.stderr
    assert "accept" in finished.stdout
    assert "█" in finished.stdout


def test_doctor_reports_matching_scores(server: TritonServer) -> None:
    finished = run_lychee("doctor", "--url", server.grpc_url)
    assert finished.returncode == 0, finished.stderr
    assert "lychee-mini" in finished.stdout

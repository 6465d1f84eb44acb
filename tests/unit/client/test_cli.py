"""The command line on the fake transport."""

import importlib.metadata
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
import typer
from fakes.dual_encoder import LOGIT_SCALE, FakeTransport
from lychee_client import Image, LycheeClient, RerankResponse, RerankResult, Text, Timings, cli
from lychee_client.cli import app, options, rerank
from lychee_client.cli.table import BAR_WIDTH, latency_line, ranking_table, score_bar
from rich.console import Console
from typer.testing import CliRunner, Result

Run = Callable[..., Result]
RESULT_KEYS = {"relevance_score", "logit", "decision", "modality", "truncated", "tokens"}
RESULT_KEYS |= {"image_size", "image_resized_to", "image_tokens", "below_threshold", "chunk", "relevant_spans"}
RESULT_KEYS |= {"spans_truncated"}


@pytest.fixture
def run(transport: FakeTransport, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command with every client on a fake transport of its own, as live as `transport`."""

    def make_client(url: str | None = None, **options: str) -> LycheeClient:
        own = FakeTransport()
        own.live = transport.live
        return LycheeClient(url, transport=own, **options)

    monkeypatch.setattr(options, "LycheeClient", make_client)
    monkeypatch.setenv("COLUMNS", "300")  # the paths of parallel test processes are long
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Return one file of each kind; the second and the fourth cannot be ranked."""
    texts = [tmp_path / "equal.txt", tmp_path / "latin1.txt"]
    texts[0].write_bytes(b"\xef\xbb\xbfred car")
    texts[1].write_bytes(b"caf\xe9")
    image, missing, unnamed = tmp_path / "red.PNG", tmp_path / "missing.jpg", tmp_path / "photo-without-suffix"
    for path in (image, unnamed):
        PIL.Image.new("RGB", (30, 20), "red").save(path, "PNG")
    return [texts[0], texts[1], image, missing, unnamed]


def test_json_is_one_object_in_rank_order(run: Run, files: list[Path]) -> None:
    result = run("rerank", "--query", "red car", "--json", *files)
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert set(data) == {"results", "errors", "query", "timings", "model", "instruction", "warnings"}
    scores = [entry["relevance_score"] for entry in data["results"]]
    assert scores == sorted(scores, reverse=True)
    assert {entry["index"]: (entry["source"], entry["modality"]) for entry in data["results"]} == {
        0: (str(files[0]), "text"),
        2: (str(files[2]), "image"),
        4: (str(files[4]), "image"),
    }
    for entry in data["results"]:
        assert set(entry) == RESULT_KEYS | {"index", "source"}
    assert [(entry["index"], entry["source"]) for entry in data["errors"]] == [(1, str(files[1])), (3, str(files[3]))]
    assert "UTF-8" in data["errors"][0]["message"]
    assert set(data["timings"]) == {
        "total_ms",
        "preprocess_ms",
        "encode_query_ms",
        "score_documents_ms",
        "find_spans_ms",
    }


def test_table_shows_results_errors_and_latency(run: Run, files: list[Path]) -> None:
    result = run("rerank", "--query", "red car", *files)
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    for expected in ("rank", "decision", "modality", "equal.txt", "error", "missing.jpg", " ms (preprocessing"):
        assert expected in words


def test_spans_show_the_best_sentence_and_json_has_all(run: Run, files: list[Path], tmp_path: Path) -> None:
    story = tmp_path / "story.txt"
    story.write_text("Zzz zzz zzz. A red car! 小猫喜欢晒太阳。", encoding="utf-8")
    entries = json.loads(run("rerank", "--query", "A red car!", "--spans", "--json", story, files[2]).stdout)["results"]
    spans = {entry["index"]: entry["relevant_spans"] for entry in entries}
    assert spans[1] is None
    assert (spans[0][0]["start"], spans[0][0]["end"]) == (13, 23)
    assert set(spans[0][0]) == {"start", "end", "score", "logit"}
    words = " ".join(run("rerank", "--query", "A red car!", "--spans", story, files[2]).stdout.split())
    assert "best sentence 1 " in words
    assert f"{spans[0][0]['score']:.3f} A red car!" in words
    assert ", spans " in words
    plain = run("rerank", "--query", "A red car!", story, files[2]).stdout
    assert "sentence" not in plain
    assert ", spans " not in plain


def test_options_reach_the_client(run: Run, files: list[Path]) -> None:
    everything = json.loads(run("rerank", "--query", "x", "--json", *files).stdout)["results"]
    top = json.loads(run("rerank", "--query", "x", "--json", "--top-n", "1", *files).stdout)["results"]
    assert top == everything[:1]
    above = run("rerank", "--query", "x", "--json", "--threshold", everything[0]["relevance_score"], *files)
    assert json.loads(above.stdout)["results"] == [
        entry for entry in everything if entry["relevance_score"] == everything[0]["relevance_score"]
    ]
    strict = json.loads(run("rerank", "--query", "red car", "--json", "--policy", "exploratory", *files).stdout)
    assert {entry["decision"] for entry in strict["results"]} <= {"accept", "review", "reject"}


def test_query_image(run: Run, files: list[Path]) -> None:
    result = run("rerank", "--query-image", files[2], "--json", files[0], files[4])
    best = json.loads(result.stdout)["results"][0]
    assert best["index"] == 1
    assert best["logit"] == pytest.approx(float(LOGIT_SCALE), abs=1e-5)  # cosine 1
    both = run("rerank", "--query", "red", "--query-image", files[2], "--json", files[0], files[4])
    assert json.loads(both.stdout)["results"][0]["logit"] < 0.999 * LOGIT_SCALE


def test_load_document_drops_the_byte_order_mark(files: list[Path]) -> None:
    assert rerank.load_document(files[0]) == Text("red car")


@pytest.mark.parametrize("name", ["PHOTO.BMP", "photo.jpeg", "photo.tiff"])
def test_load_document_leaves_images_to_the_ranking(tmp_path: Path, name: str) -> None:
    assert isinstance(rerank.load_document(tmp_path / name), Image)


def test_long_text_is_marked(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("word " * 200)
    assert json.loads(run("rerank", "--query", "word", "--json", path).stdout)["results"][0]["truncated"] is True
    assert "(truncated)" in " ".join(run("rerank", "--query", "word", path).stdout.split())


def test_best_chunk_of_a_long_text_is_shown(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    text = "word " * 40 + "a cat " * 10 + "word " * 40
    path.write_text(text)
    arguments = ("rerank", "--query", "a cat", "--chunk", "--overlap-tokens", "5", "--max-chunks", "99", path)
    result = json.loads(run(*arguments, "--json").stdout)["results"][0]
    start, end = result["chunk"]["start"], result["chunk"]["end"]
    assert "a cat a cat" in text[start:end]
    assert (result["truncated"], "document" in result) == (False, False)
    table = " ".join(run(*arguments).stdout.split())
    assert f"long.txt (characters {start} to {end}: {text[start : start + 40].strip()}…)" in table
    line = {"query": "a cat", "documents": [text]}
    calls = tmp_path / "calls.jsonl"
    calls.write_text(json.dumps(line))
    printed = run("rerank", "--calls", calls, "--chunk", "--overlap-tokens", "5", "--max-chunks", "99").stdout
    assert json.loads(printed)["results"][0]["chunk"] == result["chunk"]


def test_limits_of_long_texts_reach_the_client(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("word " * 200)
    cut = json.loads(run("rerank", "--query", "word", "--json", "--max-tokens-per-doc", "4", path).stdout)["results"][0]
    assert (cut["truncated"], cut["tokens"]) == (True, len("passage: word") + 2)
    refused = run("rerank", "--query", "word", "--no-truncation", "--json", path)
    assert refused.exit_code == 1
    assert "has 1000 tokens, of which 53 fit" in json.loads(refused.stdout)["errors"][0]["message"]
    assert "max_tokens_per_query" in run("rerank", "--query", "word", "--max-tokens-per-query", "2", path).stderr
    without = run("rerank", "--query", "word", "--max-chunks", "2", path)
    assert (without.exit_code, "together with --chunk" in without.output) == (2, True)


def test_a_query_that_is_cut_off_is_told(run: Run, files: list[Path]) -> None:
    result = run("rerank", "--query", "word " * 100, "--json", files[0])
    data = json.loads(result.stdout)
    assert data["query"] == {"modality": "text", "truncated": True, "tokens": 64}
    assert "the query is longer than the 64 tokens that fake reads" in data["warnings"][0]
    assert f"lychee: warning: {data['warnings'][0]}" in result.stderr


def test_no_document_ranked_is_exit_code_1(run: Run, files: list[Path]) -> None:
    result = run("rerank", "--query", "x", "--json", files[1], files[3])
    assert result.exit_code == 1
    assert [entry["index"] for entry in json.loads(result.stdout)["errors"]] == [0, 1]
    assert "no document could be ranked" in result.stderr


def test_threshold_above_every_score_is_exit_code_0(run: Run, files: list[Path]) -> None:
    result = run("rerank", "--query", "x", "--json", "--threshold", "1", files[0])
    assert (result.exit_code, json.loads(result.stdout)["results"]) == (0, [])


def test_failed_call_is_exit_code_1_and_one_message(run: Run, files: list[Path], transport: FakeTransport) -> None:
    transport.live = False
    result = run("rerank", "--query", "x", files[0])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("lychee: no Triton server answers on localhost:8001: the fake server is gone;")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["rerank", "--query", "x"],
        ["rerank", "file.txt"],
        ["rerank", "--query", "x", "--calls", "calls.jsonl", "file.txt"],
        ["rerank", "--query", "x", "--top-n", "0", "file.txt"],
        ["rerank", "--query", "x", "--threshold", "1.5", "file.txt"],
        ["rerank", "--query", "x", "--policy", "lenient", "file.txt"],
        ["rerank", "--query", "x", "--url", "ftp://localhost:8001", "file.txt"],
        ["rerank", "--unknown", "file.txt"],
        ["unknown"],
        [],
    ],
)
def test_usage_errors_are_exit_code_2(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_version(run: Run) -> None:
    assert run("--version").stdout.strip() == importlib.metadata.version("lychee-rerank-client")


def write_calls(path: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_calls_are_ranked_line_by_line(run: Run, files: list[Path], tmp_path: Path) -> None:
    calls = write_calls(
        tmp_path / "calls.jsonl",
        {"query": "red car", "documents": ["猫", "red car", {"text": "red", "image": files[2].name}]},
        "",
        {"query": {"image": files[2].name}, "documents": [{"image": "missing.png"}]},
        {"query": " ", "documents": ["a"]},
        {"query": "q", "documents": [{"text": "a", "images": [files[2].name] * 2}, {"images": [files[2].name]}]},
    )
    result = run("rerank", "--calls", calls, "--top-n", 2)
    first, second, third, fourth = map(json.loads, result.stdout.splitlines())
    assert first["results"][0]["index"] == 1
    assert len(first["results"]) == 2
    assert (second["results"], second["errors"][0]["index"]) == ([], 0)
    assert (third["index"], "query" in third["error"]) == (2, True)
    assert [len(fourth["results"]), "has 2 images" in fourth["errors"][0]["message"]] == [1, True]
    assert (result.exit_code, result.stderr) == (1, "lychee: 1 calls failed\n")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "line 2 is not JSON"),
        ("[]", "line 2 is '[]"),
        ({"query": "q"}, "expected"),
        ({"query": "q", "documents": "d"}, "expected"),
        ({"query": "q", "documents": [], "top_n": 1}, "expected"),
        ({"query": "q", "documents": [{}]}, "line 2 has {}"),
        ({"query": "q", "documents": [{"text": None}]}, "line 2 has"),
        ({"query": 3, "documents": []}, "line 2 has 3"),
        ({"query": "q", "documents": [{"image": 3}]}, "line 2 has"),
        ({"query": "q", "documents": [{"images": "a.png"}]}, "line 2 has"),
        ({"query": "q", "documents": [{"images": []}]}, "line 2 has"),
        ({"query": "q", "documents": [{"text": "a", "images": [None]}]}, "line 2 has"),
        ({"query": "q", "documents": [{"image": "a.png", "images": ["b.png"]}]}, "line 2 has"),
    ],
)
def test_bad_line_of_calls_is_named(run: Run, tmp_path: Path, line: object, named: str) -> None:
    calls = write_calls(tmp_path / "calls.jsonl", {"query": "q", "documents": ["d"]}, line)
    result = run("rerank", "--calls", calls)
    assert result.exit_code == 2
    assert named in result.stderr


def test_unreadable_calls_are_exit_code_2(run: Run, tmp_path: Path) -> None:
    assert "No such file" in run("rerank", "--calls", tmp_path / "missing.jsonl").stderr
    (tmp_path / "latin1.jsonl").write_bytes(b"\xe9")
    result = run("rerank", "--calls", tmp_path / "latin1.jsonl")
    assert (result.exit_code, "UTF-8" in result.stderr) == (2, True)


def test_server_timings_are_shown(run: Run, files: list[Path]) -> None:
    assert "queue ms" in run("rerank", "--query", "x", "--server-timings", files[0]).stdout
    timings = json.loads(run("rerank", "--query", "x", "--server-timings", "--json", files[0]).stdout)["timings"]
    assert timings["server"]["scoring_head_text"]["requests"] == 1


def test_min_results_are_marked(run: Run, files: list[Path]) -> None:
    result = run("rerank", "--query", "x", "--threshold", "1", "--min-results", "1", files[0], files[2])
    assert result.stdout.count("(below the threshold)") == 1


def test_warning_is_one_line_on_stderr(run: Run, files: list[Path]) -> None:
    result = run("rerank", "--query", "x", "--template", "search", files[0])
    assert result.exit_code == 0
    assert result.stderr.startswith("lychee: warning: fake reads no instruction; ")
    assert result.stderr.count("\n") == 1


def test_score_prints_one_pair(run: Run, files: list[Path]) -> None:
    data = json.loads(run("score", "--query", "red car", "--text", "red car", "--image", files[2], "--json").stdout)
    assert set(data) == RESULT_KEYS | {"query", "timings", "instruction", "warnings"}
    assert (data["modality"], data["image_size"]) == ("image_text", [30, 20])
    shown = run("score", "--query", "red car", "--text", "red car")
    assert " tokens" in shown.stdout
    assert "logit" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["--query", "x"], 2),
        (["--text", "x"], 2),
        (["--query", "x", "--text", "x", "--instruction", "a", "--template", "search"], 2),
        (["--query", "x", "--text", "x", "--template", "unknown"], 2),
        (["--query", "x", "--text", "x", "--calibration", "missing.json"], 2),
        (["--query", "x", "--text", ""], 1),
        (["--query", "x", "--image", "missing.png"], 1),
    ],
)
def test_score_refuses_what_it_cannot_score(run: Run, arguments: list[str], exit_code: int) -> None:
    result = run("score", *arguments)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr


class EntryPoint:
    """Plays an installed distribution's entry in the group."""

    def __init__(self, name: str, register: Callable[[typer.Typer], None] | Exception) -> None:
        self.name = name
        self.value = f"package.{name}:register"
        self._register = register

    def load(self) -> Callable[[typer.Typer], None]:
        if isinstance(self._register, Exception):
            raise self._register
        return self._register


def test_other_distributions_add_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def register(app: typer.Typer) -> None:
        app.command(name="extra")(lambda: typer.echo("extra ran"))

    groups = {"lychee.commands": [EntryPoint("good", register), EntryPoint("bad", ImportError("no such module"))]}
    monkeypatch.setattr(cli, "entry_points", lambda group: groups[group])
    extended = typer.Typer()
    rerank.register(extended)
    cli.add_commands(extended)
    assert CliRunner().invoke(extended, ["extra"]).stdout == "extra ran\n"
    warning = capsys.readouterr().err
    assert warning == "lychee: the commands of package.bad:register are missing: no such module\n"


def test_main_runs_the_app(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "entry_points", lambda group: [])
    monkeypatch.setattr(sys, "argv", ["lychee", "--version"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip() == importlib.metadata.version("lychee-rerank-client")


@pytest.mark.parametrize(("score", "filled"), [(0.0, 0), (0.5, BAR_WIDTH // 2), (1.0, BAR_WIDTH)])
def test_score_bar(score: float, filled: int) -> None:
    assert score_bar(score) == "█" * filled + "░" * (BAR_WIDTH - filled)


def test_table_takes_sources_literally() -> None:
    result = RerankResult(index=1, relevance_score=0.5, logit=0.0, decision="review", modality="text")
    response = RerankResponse((result,), (), Timings(total_ms=12.34))
    console = Console(file=io.StringIO(), width=100)
    console.print(ranking_table(response, ["first", "[red]second[/red]"]))
    assert "[red]second[/red]" in console.file.getvalue()
    assert latency_line(response.timings).startswith("12.3 ms")

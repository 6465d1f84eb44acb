"""The characters of a file: found where they are clear, and never guessed."""

from __future__ import annotations

import random

import pytest
from lychee_evaluate.tables.encoding import decode
from lychee_evaluate.tables.message import TableError
from lychee_evaluate.tables.reading import read_table

HEADER = "query,text,relevant\r\n"
WORDS = {
    "gb18030": "早晨的咖啡 红色连衣裙 无线蓝牙耳机 降噪入耳式 男士跑步鞋 儿童绘本故事 不锈钢炒锅 电动牙刷 羽绒服女冬季 "
    "猫粮成猫 手机保护壳 笔记本电脑 北京烤鸭 故宫门票 高铁时刻表 新能源汽车 股票行情 感冒怎么办 简历模板 龙井茶叶",
    "big5": "紅色連衣裙 無線藍牙耳機 夏季新款碎花長裙 降噪入耳式 運動鞋男 兒童繪本故事 羽絨外套女 "
    "貓咪飼料 手機保護殼 筆記型電腦 臺北小吃 高鐵時刻表",
    "cp932": "赤いワンピース 夏の新作 無線イヤホン 犬と猫 東京の天気 子供用の絵本 台所用品 電動歯ブラシ",
    "cp949": "빨간_원피스 여름_신상 무선_이어폰 강아지_사료 서울_날씨 아동_도서 주방용품 전동_칫솔 겨울_코트",
    "cp1252": "café_crème thé_à_la_menthe été chaussures_légères robe_à_fleurs garçon Kopfhörer Zahnbürste Straße",
    "cp1250": "żółć gęś_w_łóżku słuchawki szczoteczka książka męskie_buty święta źródło łódź sukienka",
    "cp1251": "красное_платье летнее_платье наушники зубная_щётка книга обувь кухня зима собака погода",
}
CHINESE = ("gb18030", "big5")


def make_text(encoding: str, rows: int, seed: int) -> str:
    draw = random.Random(f"{encoding} {rows} {seed}")
    words = [word.replace("_", " ") for word in WORDS[encoding].split()]
    lines = [f"{draw.choice(words)},{draw.choice(words)} {draw.choice(['2026', '', 'XL'])},1\r\n" for _ in range(rows)]
    return HEADER + "".join(lines)


def read_cells(data: bytes, name: str = "pairs.csv", **options: str) -> list[tuple[object, ...]]:
    return [row.cells for row in read_table(name, data, **options).rows]


def try_cells(data: bytes) -> object:
    try:
        return read_cells(data)
    except TableError as error:
        return error.message.kind


def error_kind(data: bytes, name: str = "pairs.csv", **options: str) -> str:
    with pytest.raises(TableError) as caught:
        read_table(name, data, **options)
    return caught.value.message.kind


@pytest.mark.parametrize("rows", [1, 2, 3, 10, 30])
@pytest.mark.parametrize("encoding", WORDS)
def test_text_is_read_rightly_or_refused_and_never_wrongly(encoding: str, rows: int) -> None:
    for seed in range(12):
        text = make_text(encoding, rows, seed)
        found = try_cells(text.encode(encoding))
        if found == "encoding_unclear":
            assert encoding not in CHINESE or rows < 30, text
        else:
            assert found == read_cells(text.encode()), text


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("查询,文本,相关\n猫,狗,1\n", ("猫", "狗", "1")),
        ("sep=;\n查询;文本;相关\n猫;狗;1\n", ("猫", "狗", "1")),
        ("标注表\n查询\t文本\t相关\n猫\t狗\t1\n", ("猫", "狗", "1")),
    ],
)
def test_chinese_column_names_make_two_characters_enough(text: str, cells: tuple[str, ...]) -> None:
    table = read_table("pairs.csv", text.encode("gbk"))
    assert table.rows[0].cells == cells
    assert "encoding_read" in {note.kind for note in table.notes}
    assert "read as GB18030" in [str(note) for note in table.notes]


def test_two_characters_below_english_names_are_asked_for() -> None:
    data = "query,text,label\ncat,苹果,1\n".encode("gbk")
    with pytest.raises(TableError, match=r"'cat,苹果,1' \(GB18030\)"):
        read_table("pairs.csv", data)
    assert read_cells(data, encoding="gb18030") == [("cat", "苹果", "1")]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030-mark"]
)
def test_a_mark_says_what_it_is(encoding: str) -> None:
    text = "query,text\n𠮷野家,é\n"
    marks = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff", "gb18030-mark": "\ufeff".encode("gb18030")}
    data = marks.get(encoding, b"") + text.encode(encoding.removesuffix("-mark"))
    assert read_cells(data) == [("𠮷野家", "é")]


def test_json_lines_are_read_in_other_encodings_too() -> None:
    line = '{"查询": "早晨的咖啡馆", "text": "一杯热拿铁和面包"}\n'
    for encoding in ("utf-16", "gb18030", "utf-8-sig"):
        assert read_cells((line * 3).encode(encoding), "p.jsonl")[0] == ("早晨的咖啡馆", "一杯热拿铁和面包"), encoding


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("query,text\n猫,狗".encode("utf-16-le"), "binary"),
        ("query,text\n猫,狗".encode()[:-1], "cut_off"),
        (b"\xef\xbb\xbfquery,text\n\xff,b\n", "not_in_encoding"),
        ("query,text\n猫".encode("utf-16") + b"\0", "not_in_encoding"),
        ("查询,文本\n".encode("gbk") + b"a,\xff\xff\n", "not_in_encoding"),
        (
            "query,text\n一只猫,一只猫\n".encode("gb18030"),
            "encoding_unclear",
        ),  # three letters of three scripts in UTF-8
        (b"query,text\n\x80\x81\xfe\xff\x9d,\xff\n", "encoding_unclear"),
    ],
)
def test_what_is_damaged_is_refused(data: bytes, kind: str) -> None:
    assert error_kind(data) == kind


@pytest.mark.parametrize("name", ["klingon", "base64", "hex", "rot13", "", "zip"])
def test_names_that_are_no_encoding_are_refused(name: str) -> None:
    assert error_kind(b"query,text\n", encoding=name) in ("encoding_unknown", "not_in_encoding")


def test_a_wrong_encoding_is_refused_where_it_does_not_fit() -> None:
    assert error_kind("query,text\n早晨,b\n".encode("gbk"), encoding="utf-8") == "not_in_encoding"


@pytest.mark.parametrize("text", ["café", "naïve façade", "кошка", "γάτα", "señor, кот", "é", "猫"])
def test_short_texts_in_utf8_are_read_as_such_where_they_make_words(text: str) -> None:
    decoded = decode(f"query,text\na {text}s,b\n".encode())
    assert (decoded.label, text in decoded.text) == ("UTF-8", True)

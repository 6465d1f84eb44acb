"""Everything that is said about tables, in English for the commands and in both languages for the page.

What people write stands in {placeholders}; see `message.Message`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

WORDINGS: Final[Mapping[str, Mapping[str, str]]] = {
    # The file.
    "suffix": {
        "en": "the name ends with {suffix!r}; expected one of {expected}",
        "zh": "文件名以 {suffix!r} 结尾；应为以下之一：{expected}",
    },
    "empty": {"en": "it is empty; expected a header and rows", "zh": "文件是空的；应有一行列名和若干行数据"},
    "encrypted": {
        "en": "it is protected by a password; in Excel, choose File > Info > Protect Workbook > Encrypt with Password, "
        "empty the password, and save it again",
        "zh": "文件有密码保护；请在 Excel 中选择“文件 > 信息 > 保护工作簿 > 用密码进行加密”，清空密码后重新保存",
    },
    "old_workbook": {
        "en": "it is a workbook of the old format (.xls); open it in Excel or WPS and save it as .xlsx or 'CSV UTF-8'",
        "zh": "这是旧格式的工作簿（.xls）；请用 Excel 或 WPS 打开，另存为 .xlsx 或“CSV UTF-8”",
    },
    "binary_workbook": {
        "en": "it is a binary workbook (.xlsb); open it in Excel and save it as .xlsx",
        "zh": "这是二进制工作簿（.xlsb）；请用 Excel 打开并另存为 .xlsx",
    },
    "other_office": {
        "en": "it is a spreadsheet of LibreOffice or Numbers; save or export it as .xlsx or as CSV in UTF-8",
        "zh": "这是 LibreOffice 或 Numbers 的表格；请另存或导出为 .xlsx 或 UTF-8 的 CSV",
    },
    "no_workbook": {
        "en": "it is no workbook of Excel, though it looks like one; open it in Excel and save it as .xlsx",
        "zh": "它看起来像 Excel 工作簿，但不是；请用 Excel 打开并另存为 .xlsx",
    },
    "web_page": {
        "en": "it is a web page or XML, as some programs export for Excel; open it in Excel and save it as .xlsx",
        "zh": "这是网页或 XML（有些程序这样导出给 Excel）；请用 Excel 打开并另存为 .xlsx",
    },
    "needs_openpyxl": {
        "en": "to read and write .xlsx, run: pip install 'lychee-rerank-evaluate[xlsx]'; or save it as 'CSV UTF-8'",
        "zh": "读写 .xlsx 需要先运行：pip install 'lychee-rerank-evaluate[xlsx]'；或者另存为“CSV UTF-8”",
    },
    "workbook_damaged": {
        "en": "the workbook cannot be read ({reason}); open it in Excel and save it as .xlsx again",
        "zh": "无法读取该工作簿（{reason}）；请用 Excel 打开并重新另存为 .xlsx",
    },
    "workbook_too_large": {
        "en": "the workbook unpacks to {size} MiB, more than the {limit} allowed; delete sheets and rows that are not "
        "needed, or save it as 'CSV UTF-8'",
        "zh": "工作簿解压后有 {size} MiB，超过上限 {limit} MiB；请删除不需要的工作表和行，或另存为“CSV UTF-8”",
    },
    # Its characters.
    "binary": {
        "en": "it is no text: it has zero bytes; in Excel, save it as .xlsx or 'CSV UTF-8'",
        "zh": "这不是文本：其中有零字节；请在 Excel 中另存为 .xlsx 或“CSV UTF-8”",
    },
    "cut_off": {
        "en": "it is UTF-8 whose last character is cut off; copy or export the file again",
        "zh": "文件是 UTF-8，但最后一个字符不完整；请重新复制或导出",
    },
    "encoding_unclear": {
        "en": "its encoding is not clear: a line could be {candidates}; in Excel, save it as "
        "'CSV UTF-8 (comma delimited)', or say which it is: --encoding gb18030 (REST: encoding=gb18030)",
        "zh": "文件的编码无法确定：其中一行可能是 {candidates}；请在 Excel 中另存为"
        "“CSV UTF-8（逗号分隔）”，或指明编码：--encoding gb18030（REST：encoding=gb18030）",
    },
    "encoding_unknown": {
        "en": "there is no encoding {encoding!r}; expected for example utf-8, gb18030, big5 or cp1252",
        "zh": "没有名为 {encoding!r} 的编码；例如 utf-8、gb18030、big5 或 cp1252",
    },
    "not_in_encoding": {
        "en": "it is not {encoding} throughout: byte {byte} in line {line} does not fit; in Excel, save it as "
        "'CSV UTF-8 (comma delimited)'",
        "zh": "文件不全是 {encoding}：第 {line} 行的第 {byte} 个字节不符；请在 Excel 中另存为“CSV UTF-8（逗号分隔）”",
    },
    # Its columns and rows.
    "not_csv": {
        "en": "row {row} (line {line}) is not CSV: {reason}; put texts with quotes or commas in quotes, and double "
        'quotes inside: "a ""word"", and more"',
        "zh": "第 {row} 行（文本第 {line} 行）不是 CSV：{reason}；含引号或逗号的文本要用引号括起来，"
        '其中的引号写两遍："a ""word"", and more"',
    },
    "too_large": {
        "en": "it has more than {limit} MiB; send a part of it",
        "zh": "文件超过 {limit} MiB；请只发送一部分",
    },
    "too_many_columns": {
        "en": "it has {columns} columns; expected at most {limit}: delete those that are not needed",
        "zh": "有 {columns} 列；最多 {limit} 列：请删除不需要的列",
    },
    "too_many_rows": {
        "en": "it has more than {limit} rows; send fewer of them, or several files",
        "zh": "超过 {limit} 行；请减少行数，或分成几个文件",
    },
    "too_many_cells": {
        "en": "it has {cells} cells in all; expected at most {limit}: delete columns and rows that are not needed",
        "zh": "共有 {cells} 个单元格；最多 {limit} 个：请删除不需要的列和行",
    },
    "column_twice": {
        "en": "it has the column {column!r} twice; rename one",
        "zh": "列 {column!r} 出现了两次；请给其中一个改名",
    },
    "no_column": {
        "en": "it has no column {wanted}; it has {found}, expected some of {expected}",
        "zh": "没有列 {wanted}；现有的列：{found}，可用的列：{expected}",
    },
    # One row.
    "torn_row": {
        "en": "it has {cells} cells, the header {columns}; put texts with commas in quotes",
        "zh": "有 {cells} 个单元格，而列名只有 {columns} 个；含逗号的文本要用引号括起来",
    },
    "not_json": {"en": "it is not JSON: {reason}", "zh": "不是 JSON：{reason}"},
    "not_an_object": {
        "en": "it is a JSON {type}; expected an object with the columns as keys",
        "zh": "是 JSON {type}；应为以列名为键的对象",
    },
    "error_cell": {
        "en": "a cell shows the error {value}; correct its formula",
        "zh": "有单元格显示错误 {value}；请修正其公式",
    },
    "not_calculated": {
        "en": "cell {cell} is a formula that was never computed; open the file in Excel and save it",
        "zh": "单元格 {cell} 是尚未计算的公式；请用 Excel 打开并保存文件",
    },
    "not_text": {"en": "{column} is {value}; expected a text", "zh": "{column} 是 {value}；应为文本"},
    "half_character": {
        "en": "{column} holds half a character (a lone surrogate): {reason}",
        "zh": "{column} 中有半个字符（孤立的代理项）：{reason}",
    },
    "no_query": {
        "en": "it has no query; fill in query or query_image",
        "zh": "没有查询；请填写 query（查询）或 query_image（查询图片）",
    },
    "no_document": {
        "en": "it has no document; fill in text or image",
        "zh": "没有文档；请填写 text（文本）或 image（图片）",
    },
    "no_label": {
        "en": "relevant is empty; fill in 0 or 1",
        "zh": "relevant（相关）是空的；请填写 0 或 1",
    },
    "bad_label": {
        "en": "relevant is {value}; expected 0 or 1, no or yes, FALSE or TRUE",
        "zh": "relevant（相关）是 {value}；应为 0 或 1、否或是、FALSE 或 TRUE",
    },
    "no_score": {
        "en": "relevance_score is not a number from 0 to 1",
        "zh": "relevance_score（分数）不是 0 到 1 之间的数",
    },
    "no_image_file": {
        "en": "image {image!r} is not a file in {folder}; paths are relative to the pairs' file",
        "zh": "图片 {image!r} 不是 {folder} 中的文件；路径相对于表格文件",
    },
    "image_not_sent": {
        "en": "its image {image!r} did not come with the table; put table and images into one zip, or write the image "
        "as a data URL (data:image/jpeg;base64,...)",
        "zh": "图片 {image!r} 没有随表格上传；请把表格和图片放进同一个 zip，或把图片写成 data URL"
        "（data:image/jpeg;base64,...）",
    },
    "image_not_in_zip": {
        "en": "its image {image!r} is not in the zip; names are relative to the table",
        "zh": "图片 {image!r} 不在 zip 中；名称相对于表格",
    },
    "image_not_unpacked": {
        "en": "its image {image!r} cannot be unpacked: {reason}",
        "zh": "无法解压图片 {image!r}：{reason}",
    },
    "bad_data_url": {
        "en": "its image is a data URL that is no base64: {reason}",
        "zh": "图片的 data URL 不是 base64：{reason}",
    },
    "same_pair": {
        "en": "it is the same pair as row {row}, which counts",
        "zh": "与第 {row} 行是同一对，只计第 {row} 行",
    },
    "contradiction": {
        "en": "the same pair is labelled 0 and 1 in rows {rows}; none of them counts, correct the labels",
        "zh": "同一对在第 {rows} 行既标为 0 又标为 1；都不计入，请更正标签",
    },
    "other_instruction": {
        "en": "it has another instruction: {instruction!r}",
        "zh": "指令不同：{instruction!r}",
    },
    "labelled": {"en": "it is labelled already", "zh": "已经标注过"},
    "query_unusable": {"en": "its query cannot be used: {reason}", "zh": "查询无法使用：{reason}"},
    "not_scored": {"en": "{reason}", "zh": "未能打分：{reason}"},
    # What was found out about a file.
    "encoding_read": {"en": "read as {encoding}", "zh": "按 {encoding} 读取"},
    "separator_read": {"en": "columns separated by {separator}", "zh": "列分隔符是 {separator}"},
    "sheet_read": {
        "en": "read the sheet {sheet!r} alone, not {others}",
        "zh": "只读取了工作表 {sheet!r}，未读取 {others}",
    },
    "pictures_passed_over": {
        "en": "pictures in the workbook are not read; write the names of image files into a column image",
        "zh": "工作簿中嵌入的图片不会读取；请在 image（图片）列中填写图片文件名",
    },
    "merged_cells": {
        "en": "a cell that is merged over several rows counts in each of them",
        "zh": "跨多行合并的单元格在每一行都计入",
    },
    "header_row": {
        "en": "the names of the columns are in row {row}; what stands above is passed over",
        "zh": "列名在第 {row} 行；其上的内容不读取",
    },
    "columns_read": {"en": "columns: {columns}", "zh": "列的含义：{columns}"},
    "columns_passed_over": {
        "en": "the columns {columns} are passed over, because another one means the same",
        "zh": "列 {columns} 未读取，因为已有同义的列",
    },
}

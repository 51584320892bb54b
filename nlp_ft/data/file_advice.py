"""What to do with a file that cannot be read as it is: another format, encoding, separator or place."""

from collections.abc import Sequence

TABLES = "write it as CSV in UTF-8, or read it with pandas and give the DataFrame to nlp_ft.fit"
CONLL = "a CoNLL file of words and tags ends in .conll, .bio, .iob or .txt: rename it"
PACKED = "unpack it first"
OF_SUFFIX = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".7z"), PACKED),
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".feather", ".arrow", ".pkl", ".h5", ".dta", ".sav"), TABLES),
    **dict.fromkeys((".train", ".testa", ".testb", ".dev", ".conll2003", ".iob2", ".bio2"), CONLL),
    **dict.fromkeys((".ndjson", ".ldjson"), "JSON Lines is called .jsonl here"),
}
"""Suffix of a format that is not read -> what to do."""
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""Marks at the start of a file in UTF-16, as Excel writes it."""
HEADER = "if its first line is a row, begin the file with a line of names, such as text,label"
WORDS_OF_A_TEXT = 4
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars"}


def advice_on(suffixes: Sequence[str]) -> str:
    """Say what to do with files of these suffixes, behind a semicolon; nothing where nothing is known."""
    found = [OF_SUFFIX[suffix] for suffix in suffixes if suffix in OF_SUFFIX]
    return f"; {found[0]}" if found else ""


def encoding_of(start: bytes) -> str:
    """Say what a file that is no text in UTF-8 is, by its first bytes."""
    return "is in UTF-16; save it in UTF-8" if start.startswith(UTF_16) else "is a binary file, not text"


def line_without_utf8(file: str) -> str:
    """Name the first line of a file that is not UTF-8, and say what to do."""
    with open(file, "rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                shown = f"line {number} is not UTF-8 (byte 0x{line[error.start]:02x})"
                return f"{shown}; save it in UTF-8, as pandas does with read_csv(FILE, encoding='cp1252').to_csv(...)"
    return "it is not UTF-8; save it in UTF-8"


def header_advice(columns: Sequence[str]) -> str:
    """Say, behind a semicolon, that the header of a CSV or TSV file looks divided by something else, or like a row."""
    [only] = columns if len(columns) == 1 else [""]
    seen = next((name for separator, name in OTHER_SEPARATORS.items() if separator in only), None)
    if seen is not None:
        return f"; the fields look divided by {seen}, and must be by commas in .csv and by tabs in .tsv: write it so"
    if any(looks_like_text(name) for name in columns):
        return f"; {HEADER}"
    return ""


def looks_like_text(name: str) -> bool:
    """Whether the name of a column is so long that it may be the text of a row."""
    return len(name.split()) >= WORDS_OF_A_TEXT

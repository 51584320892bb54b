"""What to do with a file that cannot be read as it is: another format, encoding, separator or place."""

from collections.abc import Sequence
from pathlib import Path

TABLES = "write it as CSV in UTF-8, or read it with pandas and give the DataFrame to nlp_ft.fit"
CONLL = "a CoNLL file of words and tags ends in .conll, .bio, .iob or .txt: rename it"
PACKED = "unpack it first"
NAMES = "a table ends in .csv if commas divide its columns, and in .tsv if tabs do: rename it"
TEXT_FILES = "texts that are a file each become rows as docs/your-own-data.md says under Files as they are published"
OF_SUFFIX = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".7z"), PACKED),
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".feather", ".arrow", ".pkl", ".h5", ".dta", ".sav"), TABLES),
    **dict.fromkeys((".train", ".testa", ".testb", ".dev", ".conll2003", ".iob2", ".bio2"), CONLL),
    **dict.fromkeys((".ndjson", ".ldjson"), "JSON Lines is called .jsonl here"),
    **dict.fromkeys(("", ".data", ".tab", ".dat"), NAMES),
}
"""Suffix of a format that is not read -> what to do."""
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""Marks at the start of a file in UTF-16, as Excel writes it."""
HEADER = "if its first line is a row, begin the file with a line of names, one for each column, divided like its rows"
WORDS_OF_A_TEXT = 4
TABS = r"sep='\t', "
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars"}
SUFFIX_OF = {"\t": ".tsv", ",": ".csv"}


def advice_on(suffixes: Sequence[str]) -> str:
    """Say what to do with files of these suffixes, behind a semicolon; nothing where nothing is known."""
    found = [OF_SUFFIX[suffix] for suffix in suffixes if suffix in OF_SUFFIX]
    return f"; {found[0]}" if found else ""


def encoding_of(file: str, start: bytes) -> str:
    """Say what a file that is no text in UTF-8 is, by its first bytes."""
    if not start.startswith(UTF_16):
        return "is a binary file, not text"
    separator = TABS if b"\t" in start else ""  # as Excel writes "Unicode text"
    return f"is in UTF-16; {written_anew(file, separator, 'utf-16')}"


def line_without_utf8(file: str) -> str:
    """Name the first line of a file that is not UTF-8, and say what to do."""
    shown, broken, beyond_ascii = "it is not UTF-8", 0, 0
    with open(file, "rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                beyond_ascii += not line.decode("utf-8").isascii()
            except UnicodeDecodeError as error:
                broken += 1
                if broken == 1:
                    shown = f"line {number} is not UTF-8 (byte 0x{line[error.start]:02x})"
    if beyond_ascii > broken:
        return f"{shown}, and most of the file is: {broken} line(s) are damaged; correct or remove them"
    return f"{shown}; {written_anew(file, TABS if _is_tsv(file) else '', 'cp1252')}"


def written_anew(file: str, options: str, encoding: str = "utf-8") -> str:
    """Say how pandas writes a file anew as CSV in UTF-8, with all values as they are.

    Args:
        file: path of the file.
        options: further arguments of `read_csv`, each with a comma and a blank behind it.
        encoding: that of the file.
    """
    read = f"pandas.read_csv({file!r}, {options}encoding={encoding!r}, dtype=str, keep_default_na=False)"
    return f"write it anew in Python: {read}.to_csv({str(Path(file).with_suffix('.new.csv'))!r}, index=False)"


def plain_marks_advice(file: str) -> str:
    """Say, behind a semicolon, what to do with a TSV whose quotation marks are plain characters; else nothing."""
    if not _is_tsv(file):
        return ""
    with open(file, encoding="utf-8-sig", errors="replace") as stream:
        widths = {line.count("\t") for line in stream if line.strip()}
    do = written_anew(file, TABS + "quoting=3, ")
    return f"; or, if its marks are plain characters, so that each line is a row, {do}" if len(widths) == 1 else ""


def _is_tsv(file: str) -> bool:
    return Path(file).suffix.lower() == ".tsv"


def header_advice(columns: Sequence[str], file: str = "FILE.csv") -> str:
    """Say, behind a semicolon, that the header of a CSV or TSV file looks divided by something else, or like a row."""
    [only] = columns if len(columns) == 1 else [""]
    seen = next((separator for separator in OTHER_SEPARATORS if separator in only), None)
    if seen is not None:
        suffix = SUFFIX_OF.get(seen)
        do = f"such a file ends in {suffix}" if suffix else written_anew(file, f"sep={seen!r}, ")
        return f"; the fields look divided by {OTHER_SEPARATORS[seen]}: {do}"
    if any(looks_like_text(name) for name in columns):
        return f"; {HEADER}"
    return ""


def looks_like_text(name: str) -> bool:
    """Whether the name of a column is so long that it may be the text of a row."""
    return len(name.split()) >= WORDS_OF_A_TEXT

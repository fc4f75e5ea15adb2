"""A list of transcripts in any of the layouts that are read, to what its rows mean.

Must not know which files there are.
"""

from pathlib import Path

from extract.corpora import kaldi, lhotse
from extract.corpora.columns import Entry, entries_of, is_wanted
from extract.corpora.tables import read_table
from omni.errors import OmniError


def read_entries(path: Path) -> list[Entry]:
    """Rows of a table, of lhotse's cuts, or of a Kaldi folder (or one of its files).

    Raises:
        OmniError: it can't be read, or a row can't be obeyed; the row and the column are named.
    """
    if kaldi.is_kaldi(path):
        return kaldi.read_kaldi(path)
    if path.is_dir():
        mend = f"name a table, or a Kaldi folder with {' and '.join(kaldi.NEEDED)}"
        raise OmniError("no transcripts in a folder", f"--transcripts {path}", mend)
    table = read_table(path, lambda name: is_wanted(name) or name in lhotse.KEYS)
    if lhotse.is_lhotse(table):
        return lhotse.cut_entries(table)
    return entries_of(table)

"""A row through recogniser and parser, for tests of either."""

from stages.common.core.records import Record
from stages.common.ingest.files.rows import Row
from stages.common.ingest.layout_table import renamed
from stages.common.ingest.layouts.fields import Fields
from stages.common.ingest.layouts.recognise import recognise
from stages.common.ingest.parsing import Kept, kept


def parse(row: Record) -> tuple[str, str, Record]:
    """Return the format, the shape and the record of a row that is one. Raises Malformed."""
    found = parse_all(row)
    ((shape, record),) = found.records
    return found.format, shape, record


def parse_all(row: Record) -> Kept:
    """Return all that becomes of a row of a known layout. Raises Malformed."""
    row = renamed(row)
    name = recognise(row)
    assert name is not None, row
    return kept(name, Row(1, b"-"), Fields(row))

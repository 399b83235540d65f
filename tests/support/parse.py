"""A row through recogniser and parser, for tests of either."""

from stages.common.core.records import Record
from stages.common.ingest.layouts.recognise import FORMATS, recognise


def parse(row: Record) -> tuple[str, str, Record]:
    """Return the format, the shape and the record. Raises Malformed."""
    name = recognise(row)
    assert name is not None, row
    shape, parser = FORMATS[name]
    return name, shape, parser(row)

"""Where Data Docs are written, for Great Expectations to load by name. It takes seconds to import: import it late."""

from great_expectations.data_context.store import TupleFilesystemStoreBackend


class SortedFilesystemStore(TupleFilesystemStoreBackend):
    """Lists pages by name; the library's own order is the disk's, so the index would differ between two machines."""

    def list_keys(self, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        """Return the keys of the pages under `prefix`."""
        return sorted(super().list_keys(prefix))

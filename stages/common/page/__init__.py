"""One self-contained HTML page for a reviewer: nothing is fetched, every text is escaped."""

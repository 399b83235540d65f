"""What stages share. It never imports a stage.

`OBSERVERS` watch a stage (its process, its log, its tracking) and never shape an out: a change there re-runs nothing
and invalidates no checkpoint. Every other module a stage imports is a dep of it in dvc.yaml.
"""

OBSERVERS = frozenset(
    {
        *("errors", "process", "parent", "journal", "progress", "figures", "crash"),
        *("memory", "memory_check", "dry_run", "memory_room", "disk_room"),
        *("tracking", "store", "spool", "forwarder", "run", "lineage"),
    }
)

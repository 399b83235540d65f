"""Raw files of any known format: unpacked, decoded, cut into rows, recognised, parsed; one row in
memory at a time.
"""

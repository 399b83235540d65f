"""The steps of `curate`, each a pure function of a text or a record; `steps.py` hangs them into
datatrove.
"""

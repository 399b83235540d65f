"""What stages share. It never imports a stage.

Where a file lies says whether it can change a model: `runtime`, `tracking` and `memory` watch a
stage (its process, its log, its memory, its run) and are no dependency of it. Every other package
here is one of the directories in dvc.yaml.
"""

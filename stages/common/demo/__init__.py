"""The parts the demo world is made of; `stages/demo.py` puts them together."""

"""The parts of a gateway, each opened as configured; ``gateway/app.py`` puts them together."""

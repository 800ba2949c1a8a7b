"""Fixtures for what lies below HTTP."""

from tests.installed import chroma_away, graphs, index, installation, of, working

__all__ = ["chroma_away", "graphs", "index", "installation", "of", "working"]

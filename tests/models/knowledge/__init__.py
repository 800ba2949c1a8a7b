"""Tests of the rules about documents and their passages."""

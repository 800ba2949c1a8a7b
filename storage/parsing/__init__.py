"""Uploaded files become units and passages here, each file read in a limited process of its own."""

from storage.parsing.kinds import MEDIA_TYPES
from storage.parsing.limits import FailureCode, Limits, ParseFailure
from storage.parsing.process import parse

__all__ = ["MEDIA_TYPES", "FailureCode", "Limits", "ParseFailure", "parse"]

"""DNS names to prompts, model answers to DNS messages: the part of the pipeline that knows LLM zones and catch-all.

Owns no state beyond the configuration; asks the LLM actor through a callable. Never lets a reserved name (a label
that begins with an underscore) reach a model, and never says NXDOMAIN below an LLM zone.
"""

from .front import LLMFront

__all__ = ["LLMFront"]

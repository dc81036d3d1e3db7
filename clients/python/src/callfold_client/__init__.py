"""Subscribe to the calls and recordings that Callfold publishes."""

from callfold_client.topics import topic_matcher

__all__ = ["topic_matcher"]

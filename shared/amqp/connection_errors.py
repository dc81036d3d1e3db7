"""What the AMQP library raises when a connection is refused or lost: the Python client has the code."""

from callfold_client.lost_connections import LOST, is_cancelled, is_lost, loss, refusal

__all__ = ["LOST", "is_cancelled", "is_lost", "loss", "refusal"]

"""Moving a running installation to another RabbitMQ."""

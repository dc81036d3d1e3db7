"""vCons by draft-ietf-vcon-vcon-core and draft-ietf-vcon-cc-extension: a JSON container for each published revision of a call."""

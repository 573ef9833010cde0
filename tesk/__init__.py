"""tesk: a GA4GH Task Execution Service server."""

__version__ = "0.1.0"

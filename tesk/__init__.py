"""tesk: a GA4GH Task Execution Service server."""

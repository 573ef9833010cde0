"""The HTTP face of tesk: TES 1.1 under its three customary base paths.

One thin ASGI application (app.py) in front of plain handlers: they take a Call and give a Reply, or raise a Refusal.
What is decided without I/O (queries, views, origins) lives in modules of its own and is tested as functions.
"""

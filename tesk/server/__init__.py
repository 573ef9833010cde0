"""The HTTP face of tesk: TES 1.1 under its three customary base paths.

One thin ASGI application (app.py) stands before plain handlers, which take a Call and return a Reply or raise a
Refusal. Decisions without I/O (queries, views, origins) have modules of their own and are tested as functions.
"""

"""The floor that the API is measured against: a bare TES store behind HTTP, which does nothing that it need not.

Starlette, uvicorn, msgspec and one statement per request; no filters by name, no states, no dispatcher, no limits. It
is what the same libraries reach when nothing is promised, and no style to copy.
"""

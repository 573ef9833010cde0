"""The controller of one task on a cluster: makes its scratch volume, runs filer, executors and filer again, and ends.

It runs as a Job of its own, in a pod that may be killed at any line and starts again: all that it needs to know is in
its record (kubernetes/record.py) and in the pods themselves. It is one small process with few imports, since
there is one for each running task.
"""

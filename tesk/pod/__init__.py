"""What runs beside a task in its pods: the reporter next to each executor, the filer, and how both tell of ends."""

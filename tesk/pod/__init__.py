"""What tesk runs in a task's pods: the runner of a whole task; or the reporter next to each executor, and the filer."""

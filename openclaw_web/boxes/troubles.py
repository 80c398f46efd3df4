"""What on our side keeps assistants from answering, or us from seeing whether they do."""

WATCH_SILENT = "watch_silent"  # its subject is the cluster

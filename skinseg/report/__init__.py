"""One self-contained HTML page about an evaluation or a comparison of runs."""

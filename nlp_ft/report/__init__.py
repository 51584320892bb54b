"""Reports of runs: reads what run folders hold, and writes one file of HTML, Markdown or JSON. Imports no torch."""

"""The table of faults as a program: `make chaos` injects each, and sees that the same dataset comes out.

`python -m tests.chaos` runs it whole and prints, for every family of faults, how many were tried, how many
were survived, and after how many the bytes were the same; each exception with what was seen. Exit code 1
where there is one. `python -m tests.chaos damage entries` runs some families, `--all` every moment instead of
a seeded sample, `--list` tells what there is.
"""

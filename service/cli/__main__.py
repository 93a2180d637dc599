"""`python -m service.cli`, for callers that know the interpreter but not where its scripts are."""

from service.cli import main

main()

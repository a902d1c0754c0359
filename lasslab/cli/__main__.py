"""`python -m lasslab.cli`, which `accelerate launch -m` needs."""

from lasslab.cli import main

main()

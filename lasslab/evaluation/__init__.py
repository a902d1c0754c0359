"""How good a separation is: metrics, and the benchmark that prints them beside floors and ceiling."""

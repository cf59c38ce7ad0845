"""`trimtab evaluate` and its inputs and options."""

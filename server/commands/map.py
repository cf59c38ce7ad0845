"""`trimtab map`."""

"""Other programs that run the base themselves and steer it through a steering session."""

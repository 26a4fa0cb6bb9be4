"""What happened: events, and who hears of them."""

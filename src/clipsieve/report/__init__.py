"""What a finished run says: numbers from the ledger, and their form in a terminal."""

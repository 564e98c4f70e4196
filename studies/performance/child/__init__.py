"""What runs in processes of their own, with another version of neuface on the path: it imports nothing from here."""

"""Numbers made with the rivals' own code, for tests to compare with: a file a method, each with numbers(source)."""

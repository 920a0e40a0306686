"""What a row is, where rows come from, and the checks that stop bad ones."""

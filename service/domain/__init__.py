"""Words and rules: immutable values, transition tables, the error tree and the ports the other rooms meet at."""

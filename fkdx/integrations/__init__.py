"""fkdx inside other people's training programs, one module a program."""

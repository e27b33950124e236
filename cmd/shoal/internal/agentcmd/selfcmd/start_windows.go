package selfcmd

// execute leaves it to the service manager, whose failure actions start the program
// again when it ends with a status; a person who started it by hand does so as well.
func execute(string) error { return nil }

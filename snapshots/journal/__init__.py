"""Who changed which row, when, from what to what: the log inside the app's database, its reading and its audit."""

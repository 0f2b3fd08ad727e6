"""The commands of psy-doit, one a module: parse, call the library, print."""

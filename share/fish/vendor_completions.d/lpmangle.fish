# Completion of lpmangle for fish. lpmangle itself knows its commands and options.
_LPMANGLE_COMPLETE=fish_source lpmangle | source

//! Command grammar, tables, templates, progress, exit codes

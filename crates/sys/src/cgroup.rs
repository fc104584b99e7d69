//! Control groups, version 1, version 2 and hybrids of both.

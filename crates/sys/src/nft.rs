//! nf_tables: rules as data, applied as one transaction.

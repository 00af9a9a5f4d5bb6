//! Keys: our own, and those that we have come to know.

//! Integration tests of IceShare: one binary, many modules.

mod crash;
mod errors;
mod main_job;

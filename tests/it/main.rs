//! Integration tests of IceShare: one binary, many modules.

mod crash;
mod errors;
mod house;
mod main_job;

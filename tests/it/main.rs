//! Integration tests of IceShare: one binary, many modules.

mod crash;
mod errors;
mod house;
mod lockstep;
mod main_job;

//! `iceshare demo`: a tracker, an origin and a small swarm in one process, to look at.

mod draw;
mod snapshot;

//! What stands between IceShare and an unmodified Icecast 2.4 server.
//!
//! - [`admin`]: what the server tells of its mounts and listeners, and how one of them is sent away;
//! - [`guide`]: who keeps a place when places are short: those who give in the swarm;
//! - [`site`]: what an agent shows, to its operator and to the station's own tools.
//!
//! The agent stands beside the server, not in front of it: it reads lists and sends listeners away (`/admin/killclient`). URL
//! authentication would let it refuse them at the door, but Icecast shuts such a mount when nobody answers there. So when the agent or
//! the tracker is gone, the server serves everybody as before.

pub mod admin;
pub mod guide;
pub mod site;

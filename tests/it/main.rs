//! Integration tests of IceShare: one binary, many modules.

mod attacks;
mod carriers;
mod crash;
mod down;
mod errors;
mod giving;
mod host;
mod house;
mod http;
mod icecast;
mod lab;
mod libp2p;
mod live;
mod lockstep;
mod main_job;
mod mixed;
mod players;
mod quic;
mod sizes;
mod source;
mod standing;
mod titles;
mod tones;
mod transports;
mod udp;
mod web;
